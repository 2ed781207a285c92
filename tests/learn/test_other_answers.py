"""Right answers in another style pass, and unforeseen wrong ones get a message."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from torch.nn import functional

from groundup.align import dpo
from groundup.learn.difference import compare, short
from groundup.learn.exercise import module_of
from groundup.learn.judge import TimeLimitExceeded, judge
from groundup.learn.lesson import lesson_of
from groundup.learn.road import find
from groundup.maths import Tensor, probability
from groundup.maths.ops import sum_to
from groundup.nn import layers


def part(exercise: str, **functions: object) -> ModuleType:
    """The shipped solution with some functions replaced."""
    found = module_of(find(exercise).folder / "solution.py", exercise)
    for name, function in functions.items():
        setattr(found, name, function)
    return found


def softmax_by_hand(scores: torch.Tensor) -> torch.Tensor:
    apart = (scores - scores.max(-1, keepdim=True).values).exp()
    return apart / apart.sum(-1, keepdim=True)


def attention_by_einsum(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: torch.Tensor
) -> torch.Tensor:
    scores = torch.einsum("bhqd,bhkd->bhqk", query, key) * query.size(-1) ** -0.5
    return torch.einsum("bhqk,bhkd->bhqd", softmax_by_hand(torch.where(mask, scores, -1e9)), value)


def merge_by_for(word: list[int], pair: tuple[int, int], new: int) -> list[int]:
    merged: list[int] = []
    skip = False
    for i, one in enumerate(word):
        if skip:
            skip = False
        elif i + 1 < len(word) and one == pair[0] and word[i + 1] == pair[1]:
            merged.append(new)
            skip = True
        else:
            merged.append(one)
    return merged


def nearest_by_distance(
    flat: torch.Tensor, code: torch.Tensor, block_size: int
) -> tuple[torch.Tensor, torch.Tensor]:
    blocks = flat.reshape(-1, block_size)
    absmax = blocks.abs().max(dim=1).values
    scaled = blocks / torch.where(absmax == 0, torch.ones_like(absmax), absmax)[:, None]
    return (scaled[..., None] - code).abs().argmin(-1).reshape(-1), absmax


def ratings_by_mm(wins: np.ndarray) -> np.ndarray:
    """Zermelo's and Hunter's iteration."""
    strength = np.ones(len(wins))
    games = wins + wins.T
    for _ in range(2000):
        strength = wins.sum(1) / (games / (strength[:, None] + strength[None])).sum(1)
        strength /= strength[0]
    return np.log(strength)


def gae_by_sum(
    rewards: np.ndarray, values: np.ndarray, gamma: float, lam: float
) -> tuple[np.ndarray, np.ndarray]:
    n = len(rewards)
    deltas = rewards + gamma * np.append(values[1:], 0.0) - values
    ahead = [sum((gamma * lam) ** k * deltas[t + k] for k in range(n - t)) for t in range(n)]
    return np.array(ahead), np.array(ahead) + values


def clip_by_minimum(
    logprobs: torch.Tensor, old_logprobs: torch.Tensor, advantages: torch.Tensor, epsilon: float
) -> torch.Tensor:
    advantages = advantages.detach()
    ratio = torch.exp(logprobs - old_logprobs.detach())
    clipped = torch.clamp(ratio, 1.0 - epsilon, 1.0 + epsilon)
    return -torch.min(ratio * advantages, clipped * advantages)


def start_by_kaiming(rank: int, inputs: int, outputs: int) -> tuple[torch.Tensor, torch.Tensor]:
    down = torch.empty(rank, inputs)
    torch.nn.init.kaiming_uniform_(down, a=5**0.5)
    return down, torch.zeros(outputs, rank)


def lora_by_linear(
    x: torch.Tensor, base: torch.Tensor, down: torch.Tensor, up: torch.Tensor, scale: float
) -> torch.Tensor:
    return base + functional.linear(functional.linear(x, down), up) * scale


def mask_by_flag(ids: list[int], start: int, end: int, header: list[int]) -> list[bool]:
    mask = [False] * len(ids)
    for place in range(len(ids)):
        if ids[place] == start and ids[place + 1 : place + 1 + len(header)] == header:
            at = place + 1 + len(header)
            while at < len(ids):
                mask[at] = True
                if ids[at] == end:
                    break
                at += 1
    return mask


def frequencies_by_exp(head_dim: int, theta: float) -> torch.Tensor:
    return (torch.arange(head_dim // 2) * (-2 / head_dim * np.log(theta))).exp().float()


def rotate_in_double(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    a, b = x.double().chunk(2, dim=-1)
    c, s = cos.double().chunk(2, dim=-1)[0], sin.double().chunk(2, dim=-1)[0]
    return torch.cat((a * c - b * s, b * c + a * s), dim=-1).float()


def gradients_on_constants(
    x: np.ndarray, classes: np.ndarray, *parameters: np.ndarray
) -> dict[str, np.ndarray]:
    """On tensors, and without a tape."""
    constants = [Tensor(array, requires_grad=False) for array in (x, *parameters)]
    inputs, w1, b1, w2, b2 = constants
    h = (inputs @ w1.T + b1).tanh()
    d_y = ((h @ w2.T + b2).softmax(1) - np.eye(len(w2))[classes]) / len(x)
    d_z = (d_y @ w2) * (1 - h * h)
    found = {"w1": d_z.T @ inputs, "b1": d_z.sum(0), "w2": d_y.T @ h, "b2": d_y.sum(0)}
    return {name: gradient.data for name, gradient in found.items()}


def dropout_by_where(x: np.ndarray, p: float, u: np.ndarray, training: bool) -> np.ndarray:
    return np.where(u < p, 0.0, x / (1 - p)) if training else x


def backward_in_topological_order(root: Tensor, seed: Tensor) -> dict[int, Tensor]:
    order: list[Tensor] = []
    seen: set[int] = set()
    waiting = [(root, False)]
    while waiting:
        tensor, parents_are_done = waiting.pop()
        if parents_are_done:
            order.append(tensor)
        elif tensor.number not in seen:
            seen.add(tensor.number)
            waiting.append((tensor, True))
            if tensor.node is not None:
                waiting += [(one, False) for one in tensor.node.parents if one.requires_grad]
    gradients = {root.number: seed}
    for tensor in reversed(order):
        if tensor.node is None:
            continue
        for parent, rule in zip(tensor.node.parents, tensor.node.rules, strict=True):
            if rule is not None and parent.requires_grad:
                share = sum_to(rule(gradients[tensor.number], tensor), parent.shape)
                before = gradients.get(parent.number)
                gradients[parent.number] = share if before is None else before + share
    return gradients


def probabilities_by_topk(
    logits: torch.Tensor, temperature: float, top_k: int, top_p: float
) -> torch.Tensor:
    if temperature == 0:
        return functional.one_hot(logits.argmax(), len(logits)).float()
    kept = logits.topk(min(top_k or len(logits), len(logits))).indices
    logits = torch.full_like(logits, -torch.inf).index_copy(0, kept, logits[kept] / temperature)
    if top_p < 1:  # from the least likely up, as Transformers goes
        rising, places = logits.softmax(-1).sort()
        dropped = rising.cumsum(-1) <= 1 - top_p
        dropped[-1] = False
        logits = logits.masked_fill(dropped.scatter(0, places, dropped), -torch.inf)
    return logits.softmax(-1)


def stop_by_counter(losses: list[float], patience: int) -> tuple[int, int]:
    lowest, best, bad = float("inf"), 0, 0
    for i, loss in enumerate(losses):
        if loss < lowest:
            lowest, best, bad = loss, i, 0
        else:
            bad += 1
            if bad == patience:
                return i, best
    return len(losses) - 1, best


def wilson_by_share(successes: float, n: int, z: float = 1.96) -> tuple[float, float]:
    p = successes / n
    center = (p + z * z / (2 * n)) / (1 + z * z / n)
    radius = z * np.sqrt(p * (1 - p) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    return max(0.0, center - radius), min(1.0, center + radius)


def remember_by_loops(
    stored: torch.Tensor, new: torch.Tensor, positions: torch.Tensor
) -> torch.Tensor:
    rows, time = positions.shape
    for row in range(rows):
        for t in range(time):
            stored[row, :, positions[row, t]] = new[row, :, t]
    return stored[:rows, :, : positions.max() + 1]


RIGHT = {
    "attention": {"attention": attention_by_einsum},
    "rope": {"frequencies": frequencies_by_exp, "rotate": rotate_in_double},
    "bpe": {"merge": merge_by_for},
    "nf4": {"quantize": nearest_by_distance},
    "preferences": {"ratings": ratings_by_mm},
    "gae": {"gae": gae_by_sum},
    "ppo_clip": {"clipped_losses": clip_by_minimum},
    "lora": {"start": start_by_kaiming, "lora": lora_by_linear},
    "masks": {"assistant_mask": mask_by_flag},
    "sampling": {"remember": remember_by_loops, "probabilities": probabilities_by_topk},
    "chain_rule": {"backward": backward_in_topological_order},
    "intervals": {"wilson": wilson_by_share},
    "by_hand": {"gradients": gradients_on_constants},
    "regularization": {"dropout": dropout_by_where, "early_stop": stop_by_counter},
    "dpo": {
        "dpo_losses": lambda c, r, rc, rr, beta: (
            functional.softplus(-beta * (c - r - rc + rr)),
            beta * (c - r - rc + rr),
        )
    },
    "training": {
        "cross_entropy": lambda logits, targets, weights: (
            weights * (logits.logsumexp(-1) - logits[torch.arange(len(targets)), targets])
        ).sum()
    },
    "reward_model": {
        "pair_losses": lambda chosen, rejected: functional.softplus(rejected - chosen)
    },
    "heads": {
        "diagonal_mean": lambda attention, back: np.nan_to_num(
            np.diagonal(attention, attention.shape[-1] - attention.shape[-2] - back, -2, -1).mean(
                -1
            )
            if back < attention.shape[-1]
            else np.zeros(attention.shape[:-2])
        )
    },
}


@pytest.mark.parametrize("exercise", RIGHT)
def test_a_right_answer_in_another_style_passes(exercise: str) -> None:
    for seed in range(3):
        verdict = judge(find(exercise), part(exercise, **RIGHT[exercise]), seed)
        assert verdict.passed, verdict.lines


WRONG = {
    "attention": {"attention": lambda query, key, value, mask: query @ key.mT},
    "training": {"cross_entropy": lambda logits, targets, weights: logits.sum() * 2},
    "dpo": {"dpo_losses": lambda c, r, rc, rr, beta: (c * 3, r)},
    "gae": {"gae": lambda rewards, values, gamma, lam: rewards},
    "lora": {"merged": lambda weight, down, up, scale: None},
    "masks": {"shifted": lambda ids, mask: (ids, ids, mask)},
    "rope": {"rotate": lambda x, cos, sin: x[..., 0]},
}


@pytest.mark.parametrize("exercise", WRONG)
def test_an_unforeseen_mistake_gets_a_message(exercise: str) -> None:
    verdict = judge(find(exercise), part(exercise, **WRONG[exercise]))
    assert verdict.state == "differs"
    assert len(verdict.lines) >= 3, verdict.lines


def test_a_right_initialization_by_rand_passes() -> None:
    def start(rank: int, inputs: int, outputs: int) -> tuple[torch.Tensor, torch.Tensor]:
        return (torch.rand(rank, inputs) * 2 - 1) / inputs**0.5, torch.zeros(outputs, rank)

    verdict = judge(find("lora"), part("lora", start=start))
    assert verdict.passed, verdict.lines


def test_a_right_clip_in_one_line_passes() -> None:
    """As in Spinning Up."""

    def losses(
        logprobs: torch.Tensor, old: torch.Tensor, advantages: torch.Tensor, epsilon: float
    ) -> torch.Tensor:
        numbers = advantages.detach()
        ends = torch.where(numbers >= 0, (1 + epsilon) * numbers, (1 - epsilon) * numbers)
        return -torch.min((logprobs - old.detach()).exp() * numbers, ends)

    verdict = judge(find("ppo_clip"), part("ppo_clip", clipped_losses=losses))
    assert verdict.passed, verdict.lines


def test_a_top_k_beyond_the_vocabulary_is_reported() -> None:
    def probabilities(
        logits: torch.Tensor, temperature: float, top_k: int, top_p: float
    ) -> torch.Tensor:
        if temperature and top_k:
            logits = logits.clone()
            logits[logits < logits.topk(top_k).values[-1]] = -torch.inf
        plain = part("sampling").probabilities(logits, temperature, 0, top_p)
        assert isinstance(plain, torch.Tensor)
        return plain

    exercise = find("sampling")
    verdict = judge(exercise, part("sampling", probabilities=probabilities))
    assert verdict.named == "more_than_there_are", verdict.lines
    assert "keeps all" in verdict.lines[-1]
    assert "larger than the vocabulary" in lesson_of(exercise).write


def test_numbers_instead_of_booleans_are_reported() -> None:
    def floats(time: int) -> torch.Tensor:
        return torch.ones(time, time).tril()

    verdict = judge(find("attention"), part("attention", causal_mask=floats))
    assert verdict.lines[-1].startswith("Hint: Booleans are expected")

    def ones(ids: list[int], start: int, end: int, header: list[int]) -> list[int]:
        return [int(one) for one in mask_by_flag(ids, start, end, header)]

    verdict = judge(find("masks"), part("masks", assistant_mask=ones))
    assert verdict.lines[-1].startswith("Hint: A boolean is expected")


def test_an_overflow_warning_is_reported() -> None:
    def plain(one: np.ndarray, other: np.ndarray) -> np.ndarray:
        return 1 / (1 + np.exp(-(one - other)))

    verdict = judge(find("preferences"), part("preferences", beats=plain))
    assert verdict.named == "overflows", verdict.lines


def scalar_of(*_: object) -> np.ndarray:
    return np.array(1.0)


@pytest.mark.parametrize(
    ("exercise", "function"),
    [("masks", "shifted"), ("scaling", "fit_law"), ("likelihood", "log_softmax")],
)
def test_a_single_number_instead_of_several_is_reported(exercise: str, function: str) -> None:
    verdict = judge(find(exercise), part(exercise, **{function: scalar_of}))
    assert verdict.state == "differs", verdict.lines


def test_a_list_of_tensors_with_a_history_is_reported() -> None:
    def leaves(logits: np.ndarray) -> list[torch.Tensor]:
        return [torch.zeros(1, requires_grad=True)]

    verdict = judge(find("likelihood"), part("likelihood", log_softmax=leaves))
    assert verdict.state == "differs", verdict.lines


def test_a_widened_dtype_is_reported() -> None:
    def wide(
        query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: torch.Tensor
    ) -> torch.Tensor:
        return attention_by_einsum(query, key, value, mask).double()

    verdict = judge(find("attention"), part("attention", attention=wide))
    assert verdict.state == "differs"
    assert "their dtype should be torch.float32" in verdict.lines[-1]


def test_late_differences_are_shown_with_the_differing_digits() -> None:
    found = compare(12.0000000001, 12.0, rtol=1e-12, atol=0)
    assert found is not None and (found.yours, found.expected) == ("12.0000000001", "12")


def test_gradients_that_are_not_tensors_do_not_pass() -> None:
    backward = part("chain_rule").backward

    def arrays(root: Tensor, seed: Tensor) -> dict[int, np.ndarray]:
        return {number: found.data for number, found in backward(root, seed).items()}

    verdict = judge(find("chain_rule"), part("chain_rule", backward=arrays))
    assert "should be a Tensor of groundup.maths" in verdict.lines[-1]


def test_a_slope_of_several_values_is_required() -> None:
    def by_limit(f: Callable[[float], float], x: float, h: float = 1e-5) -> float:
        return float((f(x + h) - f(x - h)) / (2 * h))

    verdict = judge(find("derivatives"), part("derivatives", by_limit=by_limit))
    assert verdict.lines[0] == "The first trial that differs: an f of two values."


def test_a_part_that_fails_only_in_the_product_does_not_pass() -> None:
    whole = part("optimizers").adamw_step

    def on_numpy(w: np.ndarray, *others: object) -> object:
        return whole(w.copy(), *others)  # which a tensor of torch has not

    verdict = judge(find("optimizers"), part("optimizers", adamw_step=on_numpy))
    assert verdict.state == "differs" and verdict.right == verdict.trials - 1
    assert verdict.lines[0].startswith("The first trial that differs: your part in the product")
    assert "On its own, your part is right in every trial" in verdict.lines[-1]


@pytest.mark.parametrize(
    ("exercise", "name", "function"),
    [
        ("chain_rule", "backward", lambda root, seed: _swept(root, seed)),
        ("likelihood", "log_softmax", lambda logits: probability.log_softmax(logits)),
        ("layer", "layer", lambda x, weight, bias=None: layers.linear(x, weight, bias)),
        ("dpo", "dpo_losses", lambda *given: dpo.dpo_loss(*given)),
    ],
)
def test_a_part_that_calls_the_products_function_is_reported(
    exercise: str, name: str, function: object
) -> None:
    verdict = judge(find(exercise), part(exercise, **{name: function}))
    assert verdict.state == "differs"
    assert "calls the product's own function" in verdict.lines[-1]


def _swept(root: Tensor, seed: Tensor) -> dict[int, Tensor]:
    return {tensor.number: found for tensor, found in root.sweep(seed, retain=True)}


@pytest.mark.parametrize(
    "line",
    [
        "from groundup.learn.alignment.gae.solution import gae, token_rewards",
        "from groundup.learn.alignment.gae import solution\n"
        "gae, token_rewards = solution.gae, solution.token_rewards",
    ],
)
def test_the_shipped_solution_is_not_the_learners(line: str, tmp_path: Path) -> None:
    (tmp_path / "gae.py").write_text(f"{line}\n")
    verdict = judge(find("gae"), module_of(tmp_path / "gae.py", "gae"))
    assert not verdict.passed
    assert verdict.lines[0].startswith("The file imports the shipped solution")


@pytest.mark.parametrize(
    ("exercise", "function"),
    [
        ("low_rank", "low_rank"), ("intervals", "wilson"), ("intervals", "paired_difference"),
        ("optimizers", "sgd_step"), ("optimizers", "adamw_step"),
        ("regularization", "early_stop"), ("mlp_language_model", "windows"),
        ("bpe", "count_pairs"), ("rope", "angles"), ("masks", "shifted"), ("lora", "start"),
        ("nf4", "quantize"), ("preferences", "beats"), ("gae", "gae"), ("dpo", "dpo_losses"),
        ("own_pairs", "files"),
    ],
)  # fmt: skip
def test_a_missing_return_is_reported(exercise: str, function: str) -> None:
    verdict = judge(find(exercise), part(exercise, **{function: lambda *given: None}))
    assert verdict.lines[-1].startswith("Hint: The function returns nothing"), verdict.lines


@pytest.mark.parametrize(
    ("exercise", "function", "count"),
    [
        ("dpo", "dpo_losses", 2), ("gae", "gae", 2), ("nf4", "quantize", 2), ("lora", "start", 2),
        ("optimizers", "adamw_step", 3), ("regularization", "early_stop", 2),
    ],
)  # fmt: skip
def test_one_result_instead_of_several_is_reported(
    exercise: str, function: str, count: int
) -> None:
    whole = getattr(part(exercise), function)
    first = part(exercise, **{function: lambda *given: whole(*given)[0]})
    verdict = judge(find(exercise), first)
    assert f"{function} returns {count} values" in verdict.lines[-1], verdict.lines


def test_a_mistake_is_not_named_if_the_part_is_right_there() -> None:
    gae = part("gae").gae

    def with_odd_returns(
        rewards: np.ndarray, values: np.ndarray, gamma: float, lam: float
    ) -> tuple[np.ndarray, np.ndarray]:
        advantages, returns = gae(rewards, values, gamma, lam)
        # Those of a λ of 1, and nothing else wrong: λ is used everywhere but here.
        return advantages, returns if lam else gae(rewards, values, gamma, 1.0)[1]

    verdict = judge(find("gae"), part("gae", gae=with_odd_returns))
    assert verdict.state == "differs" and verdict.named is None


def test_a_mistake_is_not_named_by_one_trial() -> None:
    # Of 2 answers this is the same number as with a logarithm of base 2.
    verdict = judge(find("best_of_n"), part("best_of_n", kl_bound=lambda n: (n - 1) / n))
    assert verdict.state == "differs" and verdict.named is None, verdict.lines


def test_two_mistakes_in_one_function_are_not_named_as_one() -> None:
    right = part("worth_it").training_bytes

    def both(frozen: int, trained: int, bits: int) -> float:
        found = right(frozen, trained, bits)
        assert isinstance(found, float)
        return found - 12 * trained + (bits == 4)

    verdict = judge(find("worth_it"), part("worth_it", training_bytes=both))
    assert verdict.state == "differs" and verdict.named is None, verdict.lines


def test_mistakes_in_two_functions_are_named_by_the_first() -> None:
    wrong = find("lora").page("wrong")
    both = part("lora", lora=wrong.scale_forgotten, merged=wrong.scale_not_merged)
    assert judge(find("lora"), both).named == "scale_forgotten"


def test_a_part_that_is_too_slow_in_the_product_is_reported() -> None:
    whole = part("optimizers").adamw_step

    def slow(w: object, *others: object) -> object:
        if isinstance(w, torch.Tensor):  # as it is in the product
            raise TimeLimitExceeded
        return whole(w, *others)

    verdict = judge(find("optimizers"), part("optimizers", adamw_step=slow))
    assert verdict.state == "differs" and "which took too long" in verdict.lines[-1]


@pytest.mark.parametrize(
    ("exercise", "function"),
    [
        ("gradient_descent", "descend"),
        ("intervals", "posterior"),
        ("derivatives", "by_limit"),
        ("initialization", "he_std"),
    ],
)
def test_lost_digits_are_reported_as_such(exercise: str, function: str) -> None:
    right = getattr(part(exercise), function)
    rounded = part(exercise, **{function: lambda *given: np.float32(right(*given))})
    verdict = judge(find(exercise), rounded)
    assert verdict.lines[-1].startswith("Hint: Nearly right"), verdict.lines


def test_a_single_0_is_not_called_all_zeros() -> None:
    found = compare(0.0, -0.000625, rtol=1e-6, atol=1e-9)
    assert found is not None and found.hint == ""
    found = compare(np.zeros(2), np.array([1.0, 2.0]), rtol=1e-6, atol=1e-9)
    assert found is not None and found.hint == "Yours is 0 everywhere."


@pytest.mark.parametrize(("yours", "expected"), [(1, 0), (0.0, 1.0), (3, 9), (16, 4)])
def test_single_integers_give_no_invented_hint(yours: float, expected: float) -> None:
    found = compare(yours, expected, rtol=1e-6, atol=1e-9)
    assert found is not None and found.hint in ("", "Yours is 0 everywhere.")


def test_the_factor_of_a_single_number_is_not_a_length() -> None:
    inputs = {"losses": np.zeros(4)}
    found = compare(1.5, 3.0, rtol=1e-6, atol=1e-9, inputs=inputs)
    assert found is not None and found.hint == "Every number is 0.5 times the expected one."


def test_a_zero_is_shown_without_a_sign() -> None:
    assert short(np.array([-0.0, -1e-9, 1.0])) == "[0. 0. 1.]"


def test_two_indices_give_no_factor() -> None:
    found = compare([4, 2], [4, 4], rtol=1e-6, atol=1e-9)
    assert found is not None and found.hint == ""


def test_three_numbers_give_no_edge_hint() -> None:
    found = compare(np.array([1.0, 2.0, 7.3]), np.array([1.0, 2.0, 0.5]), rtol=1e-6, atol=1e-9)
    assert found is not None and found.hint == ""
    yours, expected = np.array([1.0, 2.0, 3.0, 7.3]), np.array([1.0, 2.0, 3.0, 0.5])
    found = compare(yours, expected, rtol=1e-6, atol=1e-9)
    assert found is not None and found.hint.startswith("Only the last along dimension 0")


def test_a_list_of_tensors_gets_the_hint_to_join_them() -> None:
    whole = part("rnn").rnn
    verdict = judge(find("rnn"), part("rnn", rnn=lambda *given: list(whole(*given))))
    assert "stack puts them along a new dimension" in verdict.lines[-1]
    assert "is lost" not in verdict.lines[-1]


def without_the_floors_left_out(
    compute: np.ndarray, losses: np.ndarray, floors: list[float]
) -> tuple[float, float, float]:
    found = []
    for floor in floors:
        slope, log_a = np.polyfit(np.log(compute), np.log(losses - floor), 1)
        a, b = float(np.exp(log_a)), float(-slope)
        found.append((float(((losses - floor - a * compute**-b) ** 2).sum()), floor, a, b))
    return min(found)[1:]


def test_floors_that_are_not_left_out_are_found_in_any_order() -> None:
    verdict = judge(find("scaling"), part("scaling", fit_law=without_the_floors_left_out))
    assert verdict.state == "differs", verdict.lines


@pytest.mark.parametrize(
    ("exercise", "function", "made", "told"),
    [
        ("model_card", "shown",
         lambda v, lo, hi: (f"{100 * v:.1f} %", f"{100 * lo:.1f} %to {100 * hi:.1f} %"), "white"),
        ("model_card", "says", lambda *given: part("model_card").says(*given).title(), "capital"),
        ("model_card", "says", lambda lo, hi, chance: lo > chance, "A string is expected"),
        ("model_card", "says", lambda lo, hi, c: "above" if lo > c else "", 'instead of " chance"'),
        ("model_card", "missing", lambda tasks, measured: (t for t in tasks), "a generator"),
        ("masks", "assistant_mask", lambda *given: torch.tensor(mask_by_flag(*given)),
         "a torch tensor"),
        ("bpe", "byte_ids", lambda text: [0], "3 values are expected, and yours has 1"),
    ],
)  # fmt: skip
def test_the_expected_type_is_reported(
    exercise: str, function: str, made: object, told: str
) -> None:
    verdict = judge(find(exercise), part(exercise, **{function: made}))
    assert verdict.state == "differs" and told in verdict.lines[-1], verdict.lines


def test_long_texts_are_shown_where_they_differ() -> None:
    found = compare("a" * 500 + "b" * 500, "a" * 500 + "c", rtol=0, atol=0)
    assert found is not None
    assert found.hint == f'After "{"a" * 60}" yours has "{"b" * 60}" instead of "c".'


def test_a_function_of_another_name_is_suggested(tmp_path: Path) -> None:
    text = (find("layer").folder / "solution.py").read_text().replace("def neuron", "def neurone")
    (tmp_path / "layer.py").write_text(text)
    verdict = judge(find("layer"), module_of(tmp_path / "layer.py", "layer"))
    assert "no function neuron (should neurone have that name?)" in verdict.lines[0]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("def neuron(x, w, b): return (w * x).sum(axis=0)", "a Tensor has dim and keepdim"),
        ("def neuron(x, w, b): return (w @ x + b).sigmoid(1, 2)", "look up what it takes"),
        (
            "def neuron(x, w): return (w @ x).sigmoid()",
            "the stub's parameters, in the same order",
        ),
    ],
)
def test_parameters_that_do_not_fit_are_reported(text: str, told: str, tmp_path: Path) -> None:
    solution = (find("layer").folder / "solution.py").read_text()
    (tmp_path / "layer.py").write_text(f"{solution}\n\n{text}\n")
    verdict = judge(find("layer"), module_of(tmp_path / "layer.py", "layer"))
    assert told in verdict.lines[-1], verdict.lines
