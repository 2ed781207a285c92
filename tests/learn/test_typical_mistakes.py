"""Mistakes of one kind are found for any random input, and named in any form."""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Callable
from types import ModuleType

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from groundup.learn.exercise import module_of
from groundup.learn.judge import judge
from groundup.learn.road import find
from groundup.maths import Tensor as Array


def part(exercise: str, **functions: object) -> ModuleType:
    """The shipped solution with some functions replaced."""
    found = module_of(find(exercise).folder / "solution.py", exercise)
    for name, function in functions.items():
        setattr(found, name, function)
    return found


# So many draws by default, and as many again as it takes to meet an odd one.
SEEDS = pytest.mark.parametrize(
    "seeds", [range(3), pytest.param(range(3, 20), marks=pytest.mark.long)], ids=["few", "many"]
)


@SEEDS
@pytest.mark.parametrize("low", [-20.0, -100.0, -1000.0, -10_000.0])
def test_a_mask_with_a_number_is_found_for_any_input(low: float, seeds: range) -> None:
    def attention(query: Tensor, key: Tensor, value: Tensor, mask: Tensor) -> Tensor:
        scores = query @ key.mT / math.sqrt(query.shape[-1])
        return torch.where(mask, scores, low).softmax(-1) @ value

    for seed in seeds:
        verdict = judge(find("attention"), part("attention", attention=attention), seed)
        assert verdict.named == "masked_to_a_number", (seed, verdict.lines)


@SEEDS
@pytest.mark.parametrize("low", [-100_000.0, -1e9, -1e30, torch.finfo(torch.float32).min])
def test_a_mask_below_every_score_passes_for_any_input(low: float, seeds: range) -> None:
    def attention(query: Tensor, key: Tensor, value: Tensor, mask: Tensor) -> Tensor:
        scores = query @ key.mT / math.sqrt(query.shape[-1])
        return torch.where(mask, scores, low).softmax(-1) @ value

    for seed in seeds:
        verdict = judge(find("attention"), part("attention", attention=attention), seed)
        assert verdict.passed, (seed, verdict.lines)


@SEEDS
def test_a_mask_that_lowers_scores_by_a_hundred_is_found_for_any_input(seeds: range) -> None:
    def attention(query: Tensor, key: Tensor, value: Tensor, mask: Tensor) -> Tensor:
        scores = query @ key.mT / math.sqrt(query.shape[-1])
        return (scores + (~mask).float() * -100.0).softmax(-1) @ value

    for seed in seeds:
        verdict = judge(find("attention"), part("attention", attention=attention), seed)
        assert verdict.named == "lowered_by_100", (seed, verdict.lines)


Wilson = Callable[..., tuple[float, float]]


def by_shares(
    *, below: bool = True, halved: float = 2, quartered: float = 4, n_squared: bool = True
) -> Wilson:
    """Wilson's interval as in encyclopedias, of shares, optionally with a mistake."""

    def wilson(successes: float, n: int, z: float = 1.96) -> tuple[float, float]:
        p, square = successes / n, z * z
        scale = 1 / (1 + square / n) if below else 1.0
        center = scale * (p + square / (halved * n))
        last = square / (quartered * n * (n if n_squared else 1))
        radius = scale * z * math.sqrt(p * (1 - p) / n + last)
        return center - radius, center + radius

    return wilson


def cut(wilson: Wilson) -> Wilson:
    def found(successes: float, n: int, z: float = 1.96) -> tuple[float, float]:
        low, high = wilson(successes, n, z)
        return max(0.0, low), min(1.0, high)

    return found


@pytest.mark.parametrize(
    ("wilson", "named"),
    [
        (by_shares(below=False), "n_below_the_line"),
        (by_shares(halved=1), "not_halved"),
        (by_shares(quartered=1), "not_quartered"),
        (by_shares(n_squared=False), "n_not_squared"),
    ],
)
@pytest.mark.parametrize("are_cut", [False, True])
def test_a_mistake_in_wilsons_interval_of_shares_is_named(
    wilson: Wilson, named: str, are_cut: bool
) -> None:
    assert judge(find("intervals"), part("intervals", wilson=cut(by_shares()))).passed
    verdict = judge(find("intervals"), part("intervals", wilson=cut(wilson) if are_cut else wilson))
    assert verdict.named == named, verdict.lines


def nucleus(logits: Tensor, top_p: float) -> Tensor:
    shares = logits.softmax(-1)
    falling, order = shares.sort(descending=True)
    falling = torch.where(falling.cumsum(0) - falling < top_p, falling, 0.0)
    kept = torch.zeros_like(shares)
    kept[order] = falling
    return kept / kept.sum()


def by_rank(logits: Tensor, temperature: float, top_k: int, top_p: float) -> Tensor:
    if temperature == 0:
        return torch.eye(len(logits))[logits.argmax()]
    ranks = logits.argsort(descending=True).argsort()
    return nucleus((logits / temperature).masked_fill(ranks >= top_k, -torch.inf), top_p)


def by_threshold(logits: Tensor, temperature: float, top_k: int, top_p: float) -> Tensor:
    if temperature == 0:
        return torch.eye(len(logits))[logits.argmax()]
    largest, _ = torch.topk(logits, min(top_k, logits.size(-1)))
    return nucleus(torch.where(logits < largest[-1], -torch.inf, logits) / temperature, top_p)


def by_at_least_one(logits: Tensor, temperature: float, top_k: int, top_p: float) -> Tensor:
    return by_threshold(logits, temperature, max(top_k, 1), top_p)


@pytest.mark.parametrize(
    ("probabilities", "named"),
    [
        (by_rank, "none_kept"),
        (by_threshold, "none_to_compare_with"),
        (by_at_least_one, "one_kept"),
    ],
)
def test_a_top_k_of_0_that_does_not_keep_all_is_named(
    probabilities: Callable[..., Tensor], named: str
) -> None:
    verdict = judge(find("sampling"), part("sampling", probabilities=probabilities))
    assert verdict.named == named and "top_k = 0" in verdict.lines[-1], verdict.lines

    def asked(logits: Tensor, temperature: float, top_k: int, top_p: float) -> Tensor:
        return probabilities(logits, temperature, top_k or len(logits), top_p)

    assert judge(find("sampling"), part("sampling", probabilities=asked)).passed


PAIRS = {
    "neighbor_beyond_the_end": """
    for word in words:
        for i in range(len(word)):
            c[word[i], word[i + 1]] += 1""",
    "first_word_alone": """
    for word, n in zip(words, weights):
        for p in zip(word, word[1:]):
            c[p] += n
        return c""",
    "last_word_alone": """
    for word, n in zip(words, weights):
        c.clear()
        for p in zip(word, word[1:]):
            c[p] += n""",
    "written_over": """
    for word, n in zip(words, weights):
        for p in zip(word, word[1:]):
            c[p] = n""",
    "used_up": """
    for word, n in zip(words, weights):
        i = 0
        while i < len(word) - 1:
            c[word[i], word[i + 1]] += n
            i += 2 if word[i : i + 3] == word[i : i + 1] * 3 else 1""",
    "words_repeated": """
    for word, n in zip(words, weights):
        word = word * n
        for p in zip(word, word[1:]):
            c[p] += 1""",
}
MERGES = {
    "shrinks_underway": """
    for i in range(len(w) - 1):
        if (w[i], w[i + 1]) == pair:
            w[i : i + 2] = [new]
    return w""",
    "beyond_the_end": """
    out, i = [], 0
    while i < len(w):
        if [w[i], w[i + 1]] == list(pair):
            out.append(new)
            i += 1
        else:
            out.append(w[i])
        i += 1
    return out""",
    "beyond_an_end_that_looks_right": """
    out, i = [], 0
    while i < len(w):
        if w[i] == pair[0] and w[i + 1] == pair[1]:
            out.append(new)
            i += 1
        else:
            out.append(w[i])
        i += 1
    return out""",
    "next_one_beyond": """
    out, i = [], 0
    while i < len(w):
        if (*w[i : i + 2],) == pair:
            out.append(new)
            i += 2
        out.append(w[i])
        i += 1
    return out""",
    "either_order": """
    out, i = [], 0
    while i < len(w):
        if i + 1 < len(w) and {w[i], w[i + 1]} == {*pair}:
            out.append(new)
            i += 1
        else:
            out.append(w[i])
        i += 1
    return out""",
    "last_id_twice": """
    out, i = [], 0
    while i < len(w) - 1:
        if (w[i], w[i + 1]) == pair:
            out.append(new)
            i += 1
        else:
            out.append(w[i])
        i += 1
    return out + w[-1:]""",
}


def written(text: str, name: str) -> object:
    found: dict[str, object] = {}
    exec(text, found)
    return found[name]


@pytest.mark.parametrize("named", PAIRS)
def test_a_typical_mistake_in_counting_pairs_is_named(named: str) -> None:
    head = "from collections import Counter\ndef count_pairs(words, weights):\n    c = Counter()"
    function = written(f"{head}{PAIRS[named]}\n    return c", "count_pairs")
    verdict = judge(find("bpe"), part("bpe", count_pairs=function))
    assert verdict.named == named, verdict.lines


@pytest.mark.parametrize("named", MERGES)
def test_a_typical_mistake_in_merging_is_named(named: str) -> None:
    function = written(f"def merge(word, pair, new):\n    w = list(word){MERGES[named]}", "merge")
    verdict = judge(find("bpe"), part("bpe", merge=function))
    assert verdict.named == named, verdict.lines


def deviations(deviation: Callable[[np.ndarray], float]) -> object:
    def spreads(x: np.ndarray, weights: list[np.ndarray]) -> list[float]:
        found = []
        for w in weights:
            x = (x @ w.T).clip(0)
            found.append(deviation(x))
        return found

    return spreads


@pytest.mark.parametrize(
    "deviation",
    [
        lambda x: x.std(ddof=1),
        lambda x: torch.from_numpy(x).std().item(),
        lambda x: statistics.stdev(x.ravel().tolist()),
    ],
)
def test_a_sample_deviation_is_named(deviation: Callable[[np.ndarray], float]) -> None:
    whole = part("initialization", spreads=deviations(np.std))
    assert judge(find("initialization"), whole).passed
    verdict = judge(find("initialization"), part("initialization", spreads=deviations(deviation)))
    assert verdict.named == "of_a_sample" and "ddof=1" in verdict.lines[-1], verdict.lines


def masked_by(low: Callable[[Tensor, Tensor], Tensor]) -> object:
    def attention(query: Tensor, key: Tensor, value: Tensor, mask: Tensor) -> Tensor:
        scores = torch.einsum("bhqd,bhkd->bhqk", query, key) * query.size(-1) ** -0.5
        return low(scores, mask).softmax(-1) @ value

    return attention


def causal(q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    scores = q @ k.mT / q.size(-1) ** 0.5
    ahead = torch.ones(scores.shape[-2:], dtype=torch.bool).triu(1)
    return scores.masked_fill(ahead, -math.inf).softmax(-1) @ v


def bigram_without_keepdims(tokens: np.ndarray, vocab_size: int, k: float) -> np.ndarray:
    counts = np.full((vocab_size, vocab_size), k)
    for before, after in itertools.pairwise(tokens):
        counts[before, after] += 1
    return counts / counts.sum(1)


def ranks_by_argsort(rewards: np.ndarray, lengths: np.ndarray) -> float:
    return float(np.corrcoef(rewards.argsort().argsort(), lengths.argsort().argsort())[0, 1])


def appended(stored: Tensor, new: Tensor, positions: Tensor) -> Tensor:
    return torch.cat([stored, new], dim=-2)


def by_vanilla_dropout(x: np.ndarray, p: float, u: np.ndarray, training: bool) -> np.ndarray:
    return np.where(u < p, 0.0, x) if training else x * (1 - p)


def labels(ids: list[int], mask: list[bool]) -> tuple[list[int], list[int], list[float]]:
    targets = [one if learned else -100 for one, learned in zip(ids, mask, strict=True)]
    return ids[:-1], targets[1:], [float(one) for one in mask[1:]]


def priced_at_the_end(
    score: float, logprobs: np.ndarray, reference_logprobs: np.ndarray, beta: float
) -> np.ndarray:
    price = beta * (logprobs - reference_logprobs).sum()
    return np.append(np.zeros(len(logprobs) - 1), score - price)


@pytest.mark.parametrize(
    ("exercise", "function", "made", "named"),
    [
        ("attention", "attention", masked_by(lambda s, m: s + (~m).float() * -math.inf),
         "mask_times_infinity"),
        ("attention", "attention", causal, "own_mask"),
        ("attention", "causal_mask", lambda n: torch.arange(n) > torch.arange(n)[:, None],
         "true_is_hidden"),
        ("block", "swiglu", lambda x, gate, up, down: down(functional.gelu(gate(x)) * up(x)),
         "gelu_for_silu"),
        ("block", "block", lambda x, n1, a, n2, f: (h := x + n1(a(x))) + n2(f(h)),
         "norms_of_what_is_found"),
        ("training", "cross_entropy", lambda x, t, w: functional.nll_loss(x.log_softmax(1), t),
         "torchs_mean"),
        ("training", "cross_entropy", lambda x, t, w: functional.cross_entropy(x, t, weight=w),
         "weights_of_classes"),
        ("counting", "bigram", bigram_without_keepdims, "sums_in_a_row"),
        ("regularization", "dropout", by_vanilla_dropout, "scaled_in_evaluation_alone"),
        ("sampling", "remember", appended, "appended"),
        ("masks", "shifted", labels, "minus_100"),
        ("lora", "lora", lambda x, b, d, u, s: b + (x @ d.T @ u.T) * s / d.shape[0],
         "divided_by_the_rank_again"),
        ("nf4", "dequantize", lambda p, a, c, n: c[torch.stack((p >> 4, p & 15), 1).flatten()],
         "bytes_for_indices"),
        ("reward_model", "length_leak", ranks_by_argsort, "ties_in_order"),
        ("gae", "token_rewards", priced_at_the_end, "price_at_the_end"),
        ("ppo_clip", "clipped_share",
         lambda new, old, e: float((((old - new).exp() - 1).abs() > e).double().mean()),
         "ratio_turned"),
        ("dpo", "dpo_losses",
         lambda c, r, rc, rr, b: (functional.softplus((r - rr) - b * (c - rc)),
                                  b * (c - rc) - (r - rr)),
         "beta_on_the_chosen_alone"),
        ("grpo", "kl", lambda new, reference: 0.5 * (reference - new) ** 2, "half_square"),
    ],
)  # fmt: skip
def test_a_classic_mistake_in_another_style_is_named(
    exercise: str, function: str, made: object, named: str
) -> None:
    verdict = judge(find(exercise), part(exercise, **{function: made}))
    wrong = find(exercise).page("wrong")
    told = (verdict.named, verdict.lines)
    assert verdict.named is not None, told
    assert getattr(wrong, verdict.named).__doc__ == getattr(wrong, named).__doc__, told


@pytest.mark.parametrize("requires_grad", [True, False])
def test_a_neuron_without_its_history_does_not_pass(requires_grad: bool) -> None:
    def neuron(x: Array, w: Array, b: Array) -> Array:
        z = float(w.data @ x.data + b.data)
        return Array(1 / (1 + math.exp(-z)), requires_grad=requires_grad)

    verdict = judge(find("layer"), part("layer", neuron=neuron))
    assert verdict.state == "differs"
    assert "forgotten how it was computed" in verdict.lines[-1], verdict.lines


def test_a_loss_without_its_history_is_reported() -> None:
    whole = part("dpo").dpo_losses

    def losses(*given: object) -> tuple[Tensor, Tensor]:
        found, margins = whole(*given)
        return found.detach(), margins

    verdict = judge(find("dpo"), part("dpo", dpo_losses=losses))
    assert "forgotten how it was computed" in verdict.lines[-1], verdict.lines


def test_one_input_without_its_history_is_reported() -> None:
    def lora(x: Tensor, base: Tensor, down: Tensor, up: Tensor, scale: float) -> Tensor:
        return base + scale * (x @ down.T @ up.detach().T)

    verdict = judge(find("lora"), part("lora", lora=lora))
    assert "forgotten how it was computed" in verdict.lines[-1], verdict.lines


def test_an_adapter_without_its_history_is_reported() -> None:
    def lora(x: Tensor, base: Tensor, down: Tensor, up: Tensor, scale: float) -> Tensor:
        return base + scale * (x @ down.T @ up.T).detach()

    verdict = judge(find("lora"), part("lora", lora=lora))
    assert "forgotten how it was computed" in verdict.lines[-1], verdict.lines


def test_a_stream_changed_in_place_is_reported() -> None:
    Layer = Callable[[Tensor], Tensor]

    def block(x: Tensor, norm1: Layer, attend: Layer, norm2: Layer, feed: Layer) -> Tensor:
        x = x.clone()
        x += attend(norm1(x))
        x += feed(norm2(x))
        return x

    verdict = judge(find("block"), part("block", block=block))
    assert "was changed in place" in verdict.lines[-1], verdict.lines


def test_a_descent_with_lists_passes() -> None:
    def descend(
        gradient: Callable[[np.ndarray], np.ndarray], x: np.ndarray, rate: float, steps: int
    ) -> list[list[float]]:
        points = [x.tolist()]
        for _ in range(steps):
            x = x - rate * gradient(x)
            points.append(x.tolist())
        return points

    verdict = judge(find("gradient_descent"), part("gradient_descent", descend=descend))
    assert verdict.passed, verdict.lines


def test_counts_that_are_not_a_dictionary_of_pairs_are_reported() -> None:
    whole = part("bpe").count_pairs

    def texts(*given: object) -> dict[str, int]:
        return {f"{a},{b}": count for (a, b), count in whole(*given).items()}

    def rows(*given: object) -> list[object]:
        return list(whole(*given).items())

    verdict = judge(find("bpe"), part("bpe", count_pairs=texts))
    assert "(1, 2)" in verdict.lines[-1], verdict.lines
    verdict = judge(find("bpe"), part("bpe", count_pairs=rows))
    assert verdict.lines[-1].startswith("Hint: A dictionary is expected"), verdict.lines
