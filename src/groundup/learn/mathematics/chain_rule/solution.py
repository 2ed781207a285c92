"""1.2 The chain rule on a graph, solved."""

from groundup.maths.ops import sum_to
from groundup.maths.tensor import Tensor


def backward(root: Tensor, seed: Tensor) -> dict[int, Tensor]:
    gradients = {root.number: seed}
    waiting = {root.number: root}
    while waiting:
        # The newest first: tensors that used it were made later and are already done.
        tensor = waiting.pop(max(waiting))
        if tensor.node is None:  # a leaf: it has no parents to pass the gradient to
            continue
        for parent, rule in zip(tensor.node.parents, tensor.node.rules, strict=True):
            if rule is None or not parent.requires_grad:
                continue
            share = sum_to(rule(gradients[tensor.number], tensor), parent.shape)
            if parent.number in gradients:  # used more than once: shares add up
                share = gradients[parent.number] + share
            gradients[parent.number] = share
            waiting[parent.number] = parent
    return gradients
