"""The commonest mistakes in DPO."""

from torch import Tensor
from torch.nn.functional import logsigmoid

REPLACES = {
    "mean_over_tokens": "answer_logprobs",
    "prompt_counted": "answer_logprobs",
    "probabilities_added": "answer_logprobs",
    "no_reference": "dpo_losses",
    "beta_forgotten": "dpo_losses",
    "beta_outside": "dpo_losses",
    "rejected_preferred": "dpo_losses",
    "loss_rises": "dpo_losses",
    "no_logarithm": "dpo_losses",
    "exchanged": "dpo_losses",
    "reference_added": "dpo_losses",
    "sigmoid_overflows": "dpo_losses",
    "margin_without_beta": "dpo_losses",
    "mean_taken": "dpo_losses",
    "rejected_detached": "dpo_losses",
    "prompt_alone": "answer_logprobs",
    "all_together": "answer_logprobs",
    "beta_on_the_chosen_alone": "dpo_losses",
}

Pair = tuple[Tensor, Tensor]


def mean_over_tokens(token_logprobs: Tensor, mask: Tensor) -> Tensor:
    """That is the mean over the tokens. log π of an answer is the sum: probabilities of tokens
    multiply."""
    return (token_logprobs * mask).sum(-1) / mask.sum(-1)


def prompt_counted(token_logprobs: Tensor, mask: Tensor) -> Tensor:
    """The prompt's tokens and padding are added up too. Multiply by the mask first."""
    return token_logprobs.sum(-1)


def probabilities_added(token_logprobs: Tensor, mask: Tensor) -> Tensor:
    """Probabilities are added, not their logarithms."""
    return (token_logprobs.exp() * mask).sum(-1)


def no_reference(
    chosen: Tensor,
    rejected: Tensor,
    reference_chosen: Tensor,
    reference_rejected: Tensor,
    beta: float,
) -> Pair:
    """The reference is not used. What counts is how much each answer has *gained* compared with
    it."""
    margins = beta * (chosen - rejected)
    return -logsigmoid(margins), margins


def beta_forgotten(
    chosen: Tensor,
    rejected: Tensor,
    reference_chosen: Tensor,
    reference_rejected: Tensor,
    beta: float,
) -> Pair:
    """β is not used: it multiplies the difference of gains, before the sigmoid."""
    margins = (chosen - reference_chosen) - (rejected - reference_rejected)
    return -logsigmoid(margins), margins


def beta_outside(
    chosen: Tensor,
    rejected: Tensor,
    reference_chosen: Tensor,
    reference_rejected: Tensor,
    beta: float,
) -> Pair:
    """The loss is multiplied by β. It belongs inside the sigmoid, where it says how far the policy
    may go."""
    margins = (chosen - reference_chosen) - (rejected - reference_rejected)
    return -beta * logsigmoid(margins), beta * margins


def rejected_preferred(
    chosen: Tensor,
    rejected: Tensor,
    reference_chosen: Tensor,
    reference_rejected: Tensor,
    beta: float,
) -> Pair:
    """Chosen and rejected are exchanged: this model would learn what people did not want."""
    margins = beta * ((rejected - reference_rejected) - (chosen - reference_chosen))
    return -logsigmoid(margins), margins


def reference_added(
    chosen: Tensor,
    rejected: Tensor,
    reference_chosen: Tensor,
    reference_rejected: Tensor,
    beta: float,
) -> Pair:
    """The reference's margin is added. Subtract it: policy minus reference, for both answers."""
    margins = beta * ((chosen - rejected) + (reference_chosen - reference_rejected))
    return -logsigmoid(margins), margins


def sigmoid_overflows(
    chosen: Tensor,
    rejected: Tensor,
    reference_chosen: Tensor,
    reference_rejected: Tensor,
    beta: float,
) -> Pair:
    """The sigmoid of a very negative margin is 0, whose logarithm is minus infinity. logsigmoid
    computes both together."""
    margins = beta * ((chosen - reference_chosen) - (rejected - reference_rejected))
    return -margins.sigmoid().log(), margins


def margin_without_beta(
    chosen: Tensor,
    rejected: Tensor,
    reference_chosen: Tensor,
    reference_rejected: Tensor,
    beta: float,
) -> Pair:
    """The losses are right, but the margins lack the factor β: they are differences of rewards, β
    (log π - log ref)."""
    gained = (chosen - reference_chosen) - (rejected - reference_rejected)
    return -logsigmoid(beta * gained), gained


def mean_taken(
    chosen: Tensor,
    rejected: Tensor,
    reference_chosen: Tensor,
    reference_rejected: Tensor,
    beta: float,
) -> Pair:
    """The losses are averaged. Return each pair's: the trainer divides once, over the whole
    step."""
    margins = beta * ((chosen - reference_chosen) - (rejected - reference_rejected))
    return -logsigmoid(margins).mean(), margins


def rejected_detached(
    chosen: Tensor,
    rejected: Tensor,
    reference_chosen: Tensor,
    reference_rejected: Tensor,
    beta: float,
) -> Pair:
    """No gradient flows to the rejected answer. The policy learns from both; only the reference's
    log-probabilities are constants."""
    margins = beta * ((chosen - reference_chosen) - (rejected.detach() - reference_rejected))
    return -logsigmoid(margins), margins


def loss_rises(
    chosen: Tensor,
    rejected: Tensor,
    reference_chosen: Tensor,
    reference_rejected: Tensor,
    beta: float,
) -> Pair:
    """The sign inside the sigmoid is flipped: the loss would rise with the margin. It is -log
    sigmoid(margin)."""
    margins = beta * ((chosen - reference_chosen) - (rejected - reference_rejected))
    return -logsigmoid(-margins), margins


def no_logarithm(
    chosen: Tensor,
    rejected: Tensor,
    reference_chosen: Tensor,
    reference_rejected: Tensor,
    beta: float,
) -> Pair:
    """That is -sigmoid(margin). The loss is -log sigmoid(margin), by `logsigmoid`."""
    margins = beta * ((chosen - reference_chosen) - (rejected - reference_rejected))
    return -margins.sigmoid(), margins


def exchanged(
    chosen: Tensor,
    rejected: Tensor,
    reference_chosen: Tensor,
    reference_rejected: Tensor,
    beta: float,
) -> Pair:
    """The two results are exchanged: losses come first, then margins."""
    margins = beta * ((chosen - reference_chosen) - (rejected - reference_rejected))
    return margins, -logsigmoid(margins)


def prompt_alone(token_logprobs: Tensor, mask: Tensor) -> Tensor:
    """The mask is reversed: it is 1 at the answer's tokens, which are the ones that count."""
    return (token_logprobs * (1 - mask)).sum(-1)


def all_together(token_logprobs: Tensor, mask: Tensor) -> Tensor:
    """All answers were summed to one number. Sum over time alone: sum(-1)."""
    return (token_logprobs * mask).sum()


def beta_on_the_chosen_alone(
    chosen: Tensor, rejected: Tensor, reference_chosen: Tensor, reference_rejected: Tensor,
    beta: float,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """β multiplies only the gain of the chosen answer, not that of the rejected one: put brackets
    around the difference."""
    margins = beta * (chosen - reference_chosen) - (rejected - reference_rejected)
    return -logsigmoid(margins), margins
