"""The commonest wrong answers to 1.2, each with the hint that names it."""

from collections.abc import Iterator

from groundup.maths.ops import sum_to
from groundup.maths.tensor import Rule, Tensor

REPLACES = {
    "overwritten": "backward",
    "slopes_alone": "backward",
    "seed_ignored": "backward",
    "every_path": "backward",
    "too_early": "backward",
    "in_the_order_found": "backward",
    "handed_on_again": "backward",
    "first_parent_first": "backward",
    "broadcast_kept": "backward",
    "leaves_alone": "backward",
    "recursive": "backward",
    "changed_in_place": "backward",
    "constants_too": "backward",
}


def overwritten(root: Tensor, seed: Tensor) -> dict[int, Tensor]:
    """A tensor that is used twice gets a share from each use, and the second share overwrote the
    first. Shares add up: gradients[p] = gradients[p] + share."""
    gradients = {root.number: seed}
    for tensor in _newest_first(root):
        for parent, rule in _parents(tensor):
            share = rule(gradients[tensor.number], tensor)
            gradients[parent.number] = sum_to(share, parent.shape)
    return gradients


def slopes_alone(root: Tensor, seed: Tensor) -> dict[int, Tensor]:
    """Each rule got the seed (or a 1) instead of the gradient that had arrived at its tensor. That
    gives only the last factor of the chain: pass the tensor's gradient, rule(gradients[t.number],
    t)."""
    gradients = {root.number: seed}
    for tensor in _newest_first(root):
        for parent, rule in _parents(tensor):
            one = seed if tensor is root else tensor.new_ones(tensor.shape)
            share = sum_to(rule(one, tensor), parent.shape)
            before = gradients.get(parent.number)
            gradients[parent.number] = share if before is None else before + share
    return gradients


def seed_ignored(root: Tensor, seed: Tensor) -> dict[int, Tensor]:
    """The walk started with a 1. The root's own gradient is the seed, which need not be 1: start
    with gradients = {root.number: seed}."""
    from groundup.learn.mathematics.chain_rule.solution import backward

    return backward(root, seed.new_ones(seed.shape))


def every_path(root: Tensor, seed: Tensor) -> dict[int, Tensor]:
    """The values are right, but the walk follows every path separately, and their number doubles
    with each tensor that is used twice. Let a tensor wait until all its shares have arrived, then
    visit it once: the newest (largest number) first."""
    gradients: dict[int, Tensor] = {}
    waiting = [(root, seed)]
    while waiting:
        tensor, gradient = waiting.pop()
        before = gradients.get(tensor.number)
        gradients[tensor.number] = gradient if before is None else before + gradient
        for parent, rule in _parents(tensor):
            waiting.append((parent, sum_to(rule(gradient, tensor), parent.shape)))
    return gradients


def too_early(root: Tensor, seed: Tensor) -> dict[int, Tensor]:
    """A tensor was visited before all of its shares had arrived, and passed on only a part of its
    gradient. Visit every tensor that used it first: go by number, the newest first."""
    gradients = {root.number: seed}
    waiting, seen = [root], {root.number}
    while waiting:
        tensor = waiting.pop()
        for parent, rule in _parents(tensor):
            share = sum_to(rule(gradients[tensor.number], tensor), parent.shape)
            before = gradients.get(parent.number)
            gradients[parent.number] = share if before is None else before + share
            if parent.number not in seen:
                seen.add(parent.number)
                waiting.append(parent)
    return gradients


def in_the_order_found(root: Tensor, seed: Tensor) -> dict[int, Tensor]:
    """The tensors were visited in the order in which they were found, so one that is also used
    further down passed on only a part of its gradient. Visit every tensor that used it first: go by
    number, the newest first."""
    return _along(_found_in_order(root), seed)


def handed_on_again(root: Tensor, seed: Tensor) -> dict[int, Tensor]:
    """A tensor was visited for each share that arrived, and passed on its whole gradient each time,
    including what it had passed on before. Let it wait until all shares have arrived, then visit it
    once: the newest (largest number) first."""
    gradients = {root.number: seed}
    waiting = [root]
    for tensor in waiting:
        for parent, rule in _parents(tensor):
            share = sum_to(rule(gradients[tensor.number], tensor), parent.shape)
            before = gradients.get(parent.number)
            gradients[parent.number] = share if before is None else before + share
            waiting.append(parent)
    return gradients


def first_parent_first(root: Tensor, seed: Tensor) -> dict[int, Tensor]:
    """The walk goes to the end of one side before it starts the other, so a tensor that both sides
    use passed on only a part of its gradient. Visit every tensor that used it first: go by number,
    the newest first."""
    return _along(_depth_first(root), seed)


def broadcast_kept(root: Tensor, seed: Tensor) -> dict[int, Tensor]:
    """A tensor that was broadcast, such as a bias, got a gradient of the output's shape. It was
    used once for every row, and the shares of all its uses add up: sum_to(share, parent.shape)."""
    gradients = {root.number: seed}
    for tensor in _newest_first(root):
        for parent, rule in _parents(tensor):
            share = rule(gradients[tensor.number], tensor)
            before = gradients.get(parent.number)
            gradients[parent.number] = share if before is None else before + share
    return gradients


def leaves_alone(root: Tensor, seed: Tensor) -> dict[int, Tensor]:
    """Only the leaves are in the dictionary. The gradients of intermediate results belong there
    too, and the root's own, which is the seed."""
    from groundup.learn.mathematics.chain_rule.solution import backward

    found = backward(root, seed)
    leaves = {tensor.number for tensor in _newest_first(root) if tensor.node is None}
    return {number: gradient for number, gradient in found.items() if number in leaves}


def recursive(root: Tensor, seed: Tensor) -> dict[int, Tensor]:
    """A recursive function goes one call deep per operation, and Python's limit is near a thousand.
    Keep the waiting tensors in a list or dictionary, and process them in a loop."""
    order: list[Tensor] = []
    seen: set[int] = set()

    def visit(tensor: Tensor) -> None:
        if tensor.number not in seen:
            seen.add(tensor.number)
            for parent, _ in _parents(tensor):
                visit(parent)
            order.append(tensor)

    visit(root)
    gradients = {root.number: seed}
    for tensor in reversed(order):
        for parent, rule in _parents(tensor):
            share = sum_to(rule(gradients[tensor.number], tensor), parent.shape)
            before = gradients.get(parent.number)
            gradients[parent.number] = share if before is None else before + share
    return gradients


def changed_in_place(root: Tensor, seed: Tensor) -> dict[int, Tensor]:
    """+= changes a gradient in place, and several tensors may hold the very same one (a sum passes
    the same gradient to both sides, and the seed belongs to the caller). Write g = g + share."""
    gradients = {root.number: seed}
    for tensor in _newest_first(root):
        for parent, rule in _parents(tensor):
            share = sum_to(rule(gradients[tensor.number], tensor), parent.shape)
            if parent.number in gradients:
                gradients[parent.number] += share
            else:
                gradients[parent.number] = share
    return gradients


def constants_too(root: Tensor, seed: Tensor) -> dict[int, Tensor]:
    """Constants are in the dictionary as well. Leave out tensors that do not require a gradient:
    look at parent.requires_grad."""
    gradients = {root.number: seed}
    waiting = {root.number: root}
    while waiting:
        tensor = waiting.pop(max(waiting))
        node = tensor.node
        for parent, rule in zip(node.parents, node.rules, strict=True) if node else ():
            if rule is not None:
                share = sum_to(rule(gradients[tensor.number], tensor), parent.shape)
                before = gradients.get(parent.number)
                gradients[parent.number] = share if before is None else before + share
                waiting[parent.number] = parent
    return gradients


def _parents(tensor: Tensor) -> list[tuple[Tensor, Rule]]:
    """The parents that require a gradient, each with its rule."""
    node = tensor.node
    pairs = zip(node.parents, node.rules, strict=True) if node else ()
    return [(p, rule) for p, rule in pairs if rule is not None and p.requires_grad]


def _newest_first(root: Tensor) -> Iterator[Tensor]:
    """Every tensor below the root, each once."""
    found, open_ends = {root.number: root}, [root]
    while open_ends:
        for parent, _ in _parents(open_ends.pop()):
            if parent.number not in found:
                found[parent.number] = parent
                open_ends.append(parent)
    return iter([found[number] for number in sorted(found, reverse=True)])


def _found_in_order(root: Tensor) -> list[Tensor]:
    """Every tensor below the root, in the order in which a queue finds them."""
    order, seen = [root], {root.number}
    for tensor in order:
        for parent, _ in _parents(tensor):
            if parent.number not in seen:
                seen.add(parent.number)
                order.append(parent)
    return order


def _depth_first(root: Tensor) -> list[Tensor]:
    """Every tensor below the root, its first side to the end before the others."""
    order: list[Tensor] = []
    seen: set[int] = set()
    open_ends = [root]
    while open_ends:
        tensor = open_ends.pop()
        if tensor.number not in seen:
            seen.add(tensor.number)
            order.append(tensor)
            open_ends += [parent for parent, _ in reversed(_parents(tensor))]
    return order


def _along(order: list[Tensor], seed: Tensor) -> dict[int, Tensor]:
    """The gradients of a walk in that order."""
    gradients = {order[0].number: seed}
    for tensor in order:
        for parent, rule in _parents(tensor):
            share = sum_to(rule(gradients[tensor.number], tensor), parent.shape)
            before = gradients.get(parent.number)
            gradients[parent.number] = share if before is None else before + share
    return gradients
