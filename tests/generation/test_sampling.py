from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from operator import itemgetter
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from llama_cpp_py_sync._cffi_bindings import get_ffi, get_lib
from torch.testing import assert_close
from transformers import (
    LogitsProcessorList,
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from groundup.errors import UserError
from groundup.generation.penalties import SeenTokens, penalized
from groundup.generation.sampling import BatchedSampling, Sampling, filtered, restricted, sample


def theirs(logits: torch.Tensor, sampling: Sampling) -> torch.Tensor:
    """The same filters by transformers, in the order in which its `generate` applies them."""
    warpers = LogitsProcessorList([TemperatureLogitsWarper(sampling.temperature)])
    if sampling.top_k:
        warpers.append(TopKLogitsWarper(sampling.top_k))
    if sampling.top_p < 1:
        warpers.append(TopPLogitsWarper(sampling.top_p))
    if sampling.min_p:
        warpers.append(MinPLogitsWarper(sampling.min_p))
    return warpers(torch.zeros(len(logits), 1, dtype=torch.int64), logits).log_softmax(-1)


@settings(deadline=None, max_examples=200)
@given(
    seed=st.integers(0, 2**31),
    temperature=st.floats(0.1, 3.0),
    top_k=st.sampled_from([0, 1, 5, 40, 9999]),
    top_p=st.sampled_from([1.0, 0.999, 0.9, 0.5, 1e-6]),
    min_p=st.sampled_from([0.0, 0.01, 0.2, 1.0]),
    vocab=st.sampled_from([11, 300, 1000]),
)
def test_filters_equal_transformers(
    seed: int, temperature: float, top_k: int, top_p: float, min_p: float, vocab: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    # Distinct logits: among equals it is a matter of taste which one is cut.
    logits = torch.stack([torch.randperm(vocab, generator=generator) for _ in range(3)]).float()
    logits = (logits / vocab - 0.5) * 9
    sampling = Sampling(temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p)
    ours, oracle = filtered(logits, sampling), theirs(logits, sampling)
    # A token whose mass is within rounding error of the limit may be kept or removed.
    unequal = (ours.isfinite() != oracle.isfinite()).sum(-1)
    assert (unequal <= 1).all()
    same = unequal == 0
    assert_close(ours[same], oracle[same], rtol=1e-4, atol=1e-4)


WAYS = st.fixed_dictionaries(
    {
        "temperature": st.sampled_from([0.0, 0.3, 1.0, 2.5]),
        "top_k": st.sampled_from([0, 0, 1, 40, 300, 9999]),
        "top_p": st.sampled_from([1.0, 1.0, 0.95, 0.3]),
        "min_p": st.sampled_from([0.0, 0.0, 0.1]),
        "repetition_penalty": st.sampled_from([1.0, 1.0, 0.5, 1.3]),
        "presence_penalty": st.sampled_from([0.0, 0.0, -1.7, 0.3]),
        "logit_bias": st.sampled_from([(), ((3, 5.0), (7, -100.0)), ((1, 100.0),)]),
        "frequency_penalty": st.sampled_from([0.0, 0.0, -0.1, 2.0]),
    }
)


@pytest.mark.long
@settings(deadline=None, max_examples=100)
@given(
    settings=st.lists(WAYS, min_size=1, max_size=8),
    seed=st.integers(0, 2**31),
    spread=st.sampled_from([0.01, 1.0, 8.0]),
    vocab=st.sampled_from([11, 3000]),
)
def test_rows_with_different_settings_equal_single_rows(
    settings: list[dict[str, Any]], seed: int, spread: float, vocab: int
) -> None:
    ways = [Sampling(**one) for one in settings]
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(len(ways), vocab, generator=generator) * spread
    uniforms = torch.rand(len(ways), generator=generator)
    seen = torch.rand(len(ways), vocab, generator=generator) < 0.2
    counts = torch.randint(-9, 7, (len(ways), vocab), generator=generator).clamp(min=0).int()
    tables = SeenTokens(seen, counts)
    draws = BatchedSampling(ways, vocab, logits.device)
    left, tokens = filtered(logits, draws), sample(logits, draws, uniforms, tables)
    changed = draws.penalize(logits, tables)
    for row, way in enumerate(ways):
        one = slice(row, row + 1)
        alone = SeenTokens(seen[one], counts[one])
        # To the bit: the penalties of one row change no other row.
        own = BatchedSampling([way], vocab, logits.device).penalize(logits[one], alone)
        assert changed[one].equal(own), way
        assert_close(left[one], filtered(logits[one], way), rtol=1e-5, atol=1e-5)
        assert tokens[one].equal(sample(logits[one], way, uniforms[one], alone)), way
        if way.temperature:
            # A token whose mass is within rounding error of the limit may be kept or removed.
            oracle = theirs(logits[one], way).isfinite()
            assert (left[one].isfinite() != oracle).sum() <= 1


def test_top_k_beyond_the_vocabulary_removes_nothing() -> None:
    # The last token's mass is below float32's rounding of the sum before it.
    logits = torch.tensor([[30.0, 0.0, -30.0]])
    assert filtered(logits, Sampling(temperature=1.0, top_k=40)).isfinite().all()


def test_top_p_keeps_the_fewest_tokens_that_reach_it() -> None:
    logits = torch.tensor([[0.5, 0.3, 0.15, 0.05]]).log()
    for top_p, kept in ((0.4, 1), (0.6, 2), (0.79, 2), (0.81, 3), (0.99, 4)):
        out = filtered(logits, Sampling(temperature=1.0, top_p=top_p))
        assert int(out.isfinite().sum()) == kept, top_p


def test_mass_equal_to_top_p_is_enough() -> None:
    """Sums of shares in float32 differ from such a mass by a little, either way."""
    logits = torch.tensor([[0.5, 0.3, 0.2]]).log()
    for top_p, kept in ((0.5, 1), (0.8, 2), (1e-9, 1)):
        out = filtered(logits, Sampling(temperature=1.0, top_p=top_p))
        assert int(out.isfinite().sum()) == kept, top_p
    for count in (3, 10, 50):
        for kept in range(1, count):
            out = filtered(torch.zeros(1, count), Sampling(temperature=1.0, top_p=kept / count))
            assert int(out.isfinite().sum()) == kept, (kept, count)


def test_top_p_considers_more_candidates_for_flat_distributions() -> None:
    logits = torch.linspace(0, 0.01, 2000)[None]
    out = filtered(logits, Sampling(temperature=1.0, top_p=0.5))
    assert 990 < int(out.isfinite().sum()) < 1001


def test_repetition_penalty_equals_transformers() -> None:
    logits = torch.randn(3, 50)
    context = torch.randint(50, (3, 20))
    seen = torch.zeros(3, 50, dtype=torch.bool).scatter(-1, context, True)
    oracle = RepetitionPenaltyLogitsProcessor(1.3)(context, logits.clone())
    assert_close(penalized(logits, seen, 1.3), oracle)


# A prompt, a completion, and the penalties of a row.
SPOKEN = st.tuples(
    st.lists(st.integers(0, 19), min_size=1, max_size=12),
    st.lists(st.integers(0, 19), max_size=30),
    st.fixed_dictionaries(
        {
            "repetition_penalty": st.sampled_from([1.0, 1.2, 0.7]),
            "presence_penalty": st.floats(-2, 2, width=32),
            "logit_bias": st.dictionaries(st.integers(0, 19), st.floats(-100, 100, width=32)),
            "frequency_penalty": st.floats(-2, 2, width=32),
        }
    ),
)


@settings(deadline=None, max_examples=200)
@given(rows=st.lists(SPOKEN, min_size=1, max_size=5), seed=st.integers(0, 2**31))
def test_penalties_equal_a_loop_over_the_tokens(
    rows: list[tuple[list[int], list[int], dict[str, Any]]], seed: int
) -> None:
    """Prompts count for the repetition penalty only, and rows are sampled in a batch."""
    ways = [Sampling(**way) for _, _, way in rows]
    logits = torch.randn(len(rows), 20, generator=torch.Generator().manual_seed(seed)) * 4
    # The first rows are followed from their first token on, the last is found in its midst.
    ways_to_tell: dict[str, Any] = {
        "anywhere": lambda row: row[0] + row[1],
        "counts": itemgetter(1),
    }
    begun = [(prompt, list[int]()) for prompt, _, _ in rows[:-1]]
    tables = SeenTokens().updated(begun, logits, **ways_to_tell)
    for row, (_, drawn, _) in enumerate(rows[:-1]):
        for token in drawn:
            of_row = [table[row : row + 1] for table in (tables.anywhere, tables.counts)]  # type: ignore[index]
            SeenTokens(*of_row).add(torch.tensor([token]))
    tables = tables.updated(rows, logits, **ways_to_tell)
    found = BatchedSampling(ways, 20, logits.device).penalize(logits, tables)
    for row, ((prompt, drawn, _), way) in enumerate(zip(rows, ways, strict=True)):
        expected = logits[row].double().tolist()
        for token, bias in way.biases.items():
            expected[token] += bias
        for token in {*prompt, *drawn}:
            z, r = expected[token], way.repetition_penalty
            expected[token] = z / r if z > 0 else z * r
        for token, count in Counter(drawn).items():
            expected[token] -= way.frequency_penalty * count + way.presence_penalty
        assert_close(found[row].double(), torch.tensor(expected).double(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("frequency", [-0.7, 0.0, 1.4])
@pytest.mark.parametrize("presence", [-2.0, 0.0, 0.6])
@pytest.mark.parametrize("repetition", [1.0, 1.3])
def test_penalties_equal_llama_cpp(repetition: float, presence: float, frequency: float) -> None:
    """There, one count serves all three, so a completion without a prompt is the same."""
    drawn, logits = [1, 4, 1, 7, 1, 4], torch.randn(9) * 3
    theirs = by_llama_cpp(logits.tolist(), drawn, repetition, frequency, presence)
    way = Sampling(
        repetition_penalty=repetition, presence_penalty=presence, frequency_penalty=frequency
    )
    seen = SeenTokens().updated([drawn], logits[None], anywhere=list, counts=list)
    found = BatchedSampling([way], 9, logits.device).penalize(logits[None], seen)
    assert_close(found[0], torch.tensor(theirs))


def by_llama_cpp(logits: Sequence[float], drawn: Sequence[int], *penalties: float) -> list[float]:
    lib, ffi = get_lib(), get_ffi()
    sampler = lib.llama_sampler_init_penalties(len(logits), len(drawn), *penalties)
    for token in drawn:
        lib.llama_sampler_accept(sampler, token)
    data = ffi.new("llama_token_data[]", [(id, logit, 0.0) for id, logit in enumerate(logits)])
    whole = {"data": data, "size": len(logits), "selected": -1, "sorted": False}
    lib.llama_sampler_apply(sampler, ffi.new("llama_token_data_array *", whole))
    lib.llama_sampler_free(sampler)
    return [data[id].logit for id in range(len(logits))]


def test_penalties_that_are_off_change_nothing() -> None:
    logits = torch.randn(3, 20)
    assert BatchedSampling([Sampling()] * 3, 20, logits.device).penalize(logits, None) is logits


def test_uniform_numbers_sample_tokens_in_proportion_to_their_probability() -> None:
    count = 20_000
    logits = torch.randn(1, 30)
    sampling = Sampling(temperature=0.8, top_k=12, top_p=0.95)
    uniforms = torch.arange(count) / count
    tokens = sample(logits.expand(count, -1), sampling, uniforms)
    shares = tokens.bincount(minlength=30) / count
    # Each share is exact up to one count at either end and a rounding error.
    assert_close(shares, filtered(logits, sampling)[0].exp(), rtol=0, atol=3 / count)


def test_filtered_tokens_are_never_sampled() -> None:
    logits = torch.randn(4, 300)
    sampling = Sampling(temperature=1.0, top_k=3)
    allowed = filtered(logits, sampling).isfinite()
    for u in (0.0, 1e-9, 0.5, 1 - 2**-24, 1.0):
        tokens = sample(logits, sampling, torch.full((4,), u))
        assert allowed.gather(-1, tokens[:, None]).all(), u


def test_temperature_zero_is_greedy_after_the_penalty() -> None:
    logits = torch.tensor([[1.0, 2.0, 1.9]])
    uniforms = torch.tensor([0.9])
    assert sample(logits, Sampling(temperature=0.0), uniforms).tolist() == [1]
    seen = SeenTokens(torch.tensor([[False, True, False]]), torch.tensor([[0, 1, 0]]))
    for penalty in ({"repetition_penalty": 1.5}, {"presence_penalty": 0.2}):
        way = Sampling(temperature=0.0, **penalty)  # type: ignore[arg-type]
        assert sample(logits, way, uniforms, seen).tolist() == [2]


@pytest.mark.parametrize(
    "wrong",
    [
        {"temperature": -0.1},
        {"temperature": float("nan")},
        {"temperature": float("inf")},
        {"top_k": -1},
        {"top_p": 0.0},
        {"top_p": 1.1},
        {"min_p": -0.1},
        {"min_p": 2.0},
        {"repetition_penalty": 0.0},
        {"presence_penalty": -2.1},
        {"frequency_penalty": 3},
        {"frequency_penalty": float("nan")},
        {"presence_penalty": True},
        {"logit_bias": {5: 101}},
        {"logit_bias": {-1: 1.0}},
        {"logit_bias": {"a": 1.0}},
        {"logit_bias": {5: True}},
        {"logit_bias": 5},
        {"max_new_tokens": 0},
        {"stop": ("",)},
        {"stop": (3,)},
        {"stop_ids": (3, -1)},
        {"stop_ids": (True,)},
        {"temperature": True},
        {"temperature": np.True_},
        {"top_k": np.float64(5)},
        {"ignore_eos": "no"},
        {"top_k": 5.0},
        {"max_new_tokens": True},
        {"min_new_tokens": None},
        {"temperature": "0.5"},
        {"seed": 1.5},
    ],
)
def test_values_out_of_range_are_named(wrong: dict[str, Any], unchecked_types: None) -> None:
    [(name, value)] = wrong.items()
    with pytest.raises(UserError, match=f"{name}=") as error:
        Sampling(**wrong)
    plain = isinstance(value, int | float) and not isinstance(value, bool)
    assert (f"{value:g}" if plain else repr(value)) in str(error.value)


def test_a_single_stop_string_is_accepted(unchecked_types: None) -> None:
    assert Sampling(stop="the") == Sampling(stop=["the"]) == Sampling(stop=("the",))  # type: ignore[arg-type]
    assert Sampling(stop_ids=5).stop_ids == (5,)  # type: ignore[arg-type]
    assert set(Sampling(stop={"a", "the"}).stop) == {"a", "the"}  # type: ignore[arg-type]


def test_numpy_and_torch_numbers_are_accepted(unchecked_types: None) -> None:
    plain = Sampling(temperature=0.5, top_k=5, seed=3, stop_ids=(1, 2))
    for ids in (np.array([1, 2]), torch.tensor([1, 2]), iter([np.int64(1), 2])):
        given: dict[str, Any] = {"top_k": np.int64(5), "seed": np.uint32(3), "stop_ids": ids}
        found = Sampling(temperature=np.float32(0.5), **given)  # type: ignore[arg-type]
        assert found == plain and repr(found) == repr(plain)


def test_a_mask_moves_to_the_device_of_the_logits() -> None:
    allowed = torch.tensor([True, False, True])
    assert restricted(torch.zeros(1, 3), allowed).tolist() == [[0.0, -torch.inf, 0.0]]
    # The meta device has no numbers, but refuses tensors of another device.
    assert restricted(torch.zeros(1, 3, device="meta"), allowed).shape == (1, 3)
