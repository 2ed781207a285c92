from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from groundup.errors import UserError
from groundup.generation.engine import Engine, Event
from groundup.generation.generate import generate, reference_generate
from groundup.generation.prefill import MIN_SHARED, shared_length
from groundup.generation.request import Completion, Request, SequenceState
from groundup.generation.sampling import Sampling
from groundup.lm.model import CausalLM
from groundup.text.tokenizer import Tokenizer
from groundup.train.batch import Batch

TinyModel = Callable[..., CausalLM]

FAMILIES = {
    "qwen3": {},
    "window": {"model_type": "mistral", "sliding_window": 8},
    "gpt2": {
        "model_type": "gpt2",
        "hidden_act": "gelu_new",
        "num_key_value_heads": 4,
        "attention_bias": True,
        "mlp_bias": True,
    },
}
ENDS = tuple(range(0, 320, 32))


def mixed_requests(seed: int, count: int) -> list[Request]:
    """Prompts of many lengths, some equal and some with common prefixes, with all sampling
    settings."""
    dice, penalties = random.Random(seed), random.Random(seed)
    beginnings = [[dice.randrange(3, 320) for _ in range(length)] for length in (0, 20, 33)]
    requests: list[Request] = []
    for _ in range(count):
        if requests and dice.random() < 0.2:
            requests.append(dice.choice(requests))
            continue
        own = [dice.randrange(3, 320) for _ in range(dice.randrange(1, 20))]
        sampling = Sampling(
            temperature=dice.choice([0.0, 0.7, 1.3]),
            top_k=dice.choice([0, 0, 20]),
            top_p=dice.choice([1.0, 0.9]),
            min_p=dice.choice([0.0, 0.02]),
            repetition_penalty=dice.choice([1.0, 1.0, 1.2]),
            presence_penalty=penalties.choice([0.0, 0.0, 1.5]),
            frequency_penalty=penalties.choice([0.0, 0.0, -0.4]),
            logit_bias=penalties.choice([(), (), ((5, 3.0), (9, -100.0))]),
            max_new_tokens=dice.randrange(1, 30),
            seed=dice.randrange(3),
        )
        requests.append(Request(dice.choice(beginnings) + own, sampling=sampling))
    return requests


def serve(
    engine: Engine, requests: Sequence[Request], dice: random.Random, cancelled: float = 0.0
) -> list[Completion]:
    """Serve requests that arrive and are cancelled at random times; return them in order."""
    done: dict[int, Completion] = {}
    events: dict[int, list[Event]] = {}
    numbers: list[int] = []
    while len(numbers) < len(requests) or engine.unfinished:
        while len(numbers) < len(requests) and dice.random() < 0.5:
            numbers.append(engine.submit(requests[len(numbers)]))
        for event in engine.step():
            assert event.id not in done, "nothing comes after the end"
            events.setdefault(event.id, []).append(event)
            if event.completion is not None:
                done[event.id] = event.completion
        waiting = [number for number in numbers if number not in done]
        if waiting and dice.random() < cancelled:
            number = dice.choice(waiting)
            completion = engine.cancel(number)
            assert completion is not None and engine.cancel(number) is None
            done[number] = completion
    for number, told in events.items():
        assert [e.token for e in told if e.token is not None] == done[number].ids
        assert [e.logprob for e in told if e.logprob is not None] == done[number].logprobs
    return [done[number] for number in numbers]


def assert_same(ours: Sequence[Completion], others: Sequence[Completion]) -> None:
    for one, other in zip(ours, others, strict=True):
        assert one.ids == other.ids and one.finish_reason == other.finish_reason
        assert_close(torch.tensor(one.logprobs), torch.tensor(other.logprobs), rtol=0, atol=1e-4)


def check_batching(model: CausalLM, seed: int) -> None:
    dice = random.Random(seed)
    requests = mixed_requests(seed, 14)
    engine = Engine(
        model,
        batch_size=dice.choice([1, 3, 5]),
        prompt_tokens=dice.choice([1, 7, 512]),
        share_prefixes=dice.random() < 0.8,
    )
    assert_same(serve(engine, requests, dice), reference_generate(model, requests))


@pytest.mark.every(2)
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("seed", range(2))
def test_batched_equals_single_when_rows_join_and_finish(
    tiny_model: TinyModel, family: str, seed: int
) -> None:
    check_batching(tiny_model(eos_token_ids=ENDS, **FAMILIES[family]), seed)


@pytest.mark.long
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("seed", range(100, 110))
def test_batched_equals_single_many_times(tiny_model: TinyModel, family: str, seed: int) -> None:
    # In float64: among so many samples, one in float32 would fall between two roundings of a sum.
    check_batching(tiny_model(eos_token_ids=ENDS, **FAMILIES[family]).double(), seed)


@pytest.mark.parametrize("seed", range(3))
def test_a_cancelled_request_does_not_affect_others(tiny_model: TinyModel, seed: int) -> None:
    model = tiny_model(eos_token_ids=ENDS)
    requests = mixed_requests(seed, 14)
    engine = Engine(model, batch_size=4, prompt_tokens=5)
    ours = serve(engine, requests, random.Random(seed), cancelled=0.2)
    for one, whole in zip(ours, reference_generate(model, requests), strict=True):
        if one.finish_reason == "cancelled":
            assert whole.ids[: len(one.ids)] == one.ids
        else:
            assert_same([one], [whole])
    reasons = {one.finish_reason for one in ours}
    assert reasons == {"cancelled", "stop", "length"}, "the test should see all of them"


def test_batched_bf16_is_within_the_stated_tolerance(tiny_model: TinyModel) -> None:
    """Log-probabilities of the same tokens, forced by masks, within 1/64 of the largest logit."""
    model = tiny_model(eos_token_ids=()).to(torch.bfloat16)
    requests = []
    for request in mixed_requests(5, 12):
        assert request.prompt_ids is not None
        wanted = torch.randint(320, (20,)).tolist()

        def only(ids: Sequence[int], wanted: list[int] = wanted) -> torch.Tensor:
            return torch.arange(320) == wanted[len(ids)]

        sampling = Sampling(temperature=0, max_new_tokens=20)
        requests.append(Request(request.prompt_ids, sampling=sampling, mask=only))
    alone = [generate(model, [request])[0] for request in requests]
    ours = serve(Engine(model, batch_size=5, prompt_tokens=9), requests, random.Random(0))
    for request, one, other in zip(requests, ours, alone, strict=True):
        assert one.ids == other.ids and request.prompt_ids is not None
        logits = model.logits(Batch.of(torch.tensor([[*request.prompt_ids, *one.ids]])))
        tolerance = float(logits.detach().abs().max()) / 64
        here, there = torch.tensor(one.logprobs), torch.tensor(other.logprobs)
        assert_close(here, there, rtol=0, atol=tolerance)


# Sharing prefixes.


@contextmanager
def counting(model: CausalLM) -> Iterator[list[int]]:
    """The number of tokens of each forward pass."""
    counts: list[int] = []
    hook = model.model.embed_tokens.register_forward_hook(
        lambda module, given, out: counts.append(given[0].numel())
    )
    yield counts
    hook.remove()


def ids(length: int, seed: int) -> list[int]:
    return torch.randint(3, 320, (length,), generator=torch.manual_seed(seed)).tolist()


ONE_TOKEN = Sampling(temperature=1.0, max_new_tokens=1)


def test_equal_prompts_are_read_once(tiny_model: TinyModel) -> None:
    model, request = tiny_model(eos_token_ids=()), Request(ids(40, 0), sampling=ONE_TOKEN)
    with counting(model) as counts:
        shared = generate(model, [request] * 8)
    assert sum(counts) == 40
    with counting(model) as counts:
        assert_same(generate(model, [request] * 8, share_prefixes=False), shared)
    assert sum(counts) == 8 * 40
    with counting(model) as counts:  # also when not all fit at once
        assert_same(generate(model, [request] * 8, batch_size=3), shared)
    assert sum(counts) == 40 + 2


def test_a_common_prefix_is_read_once(tiny_model: TinyModel) -> None:
    model, start = tiny_model(eos_token_ids=()), ids(40, 0)
    requests = [Request(start + ids(6, n + 1), sampling=ONE_TOKEN) for n in range(8)]
    with counting(model) as counts:
        shared = generate(model, requests)
    assert sum(counts) == 46 + 7 * 6
    assert_same(shared, generate(model, requests, share_prefixes=False))


def test_a_continued_conversation_reads_only_new_tokens(tiny_model: TinyModel) -> None:
    model, sampling = tiny_model(eos_token_ids=()), Sampling(temperature=0, max_new_tokens=9)
    engine = Engine(model, batch_size=2)
    prompts = [ids(20, 0), ids(17, 1)]
    for _ in range(2):
        for prompt in prompts:
            engine.submit(Request(list(prompt), sampling=sampling))
        with counting(model) as counts:
            done = {e.id % 2: e.completion for e in steps(engine) if e.completion}
        expected = reference_generate(model, [Request(p, sampling=sampling) for p in prompts])
        assert_same([completion for _, completion in sorted(done.items())], expected)
        prompts = [
            [*prompt, *completion.ids, 5, 6]
            for prompt, (_, completion) in zip(prompts, sorted(done.items()), strict=True)
        ]
    # In the second turn each reads three tokens before it samples: the last one of its old answer,
    # which was sampled but not read, and two new ones.
    assert sum(counts) == 2 * 3 + 2 * 8


def steps(engine: Engine) -> Iterator[Event]:
    while engine.unfinished:
        yield from engine.step()


def test_shared_length() -> None:
    one = list(range(100))
    for length in (0, MIN_SHARED - 1, MIN_SHARED, 50, 99):
        other = [*one[:length], -1, *one[length + 1 :]]
        assert shared_length(one, other) == (length if length >= MIN_SHARED else 0)
    assert shared_length(one, one[:40]) == 40 and shared_length([], []) == 0


# Fairness and memory.


def test_long_prompts_do_not_block_running_rows(tiny_model: TinyModel) -> None:
    model = tiny_model(eos_token_ids=())
    engine = Engine(model, batch_size=2, prompt_tokens=4)
    first = engine.submit(Request([7], sampling=Sampling(max_new_tokens=30)))
    engine.step()
    second = engine.submit(Request(ids(40, 0), sampling=ONE_TOKEN))
    for _ in range(9):
        assert [event.id for event in engine.step()] == [first]
    assert {event.id for event in engine.step()} == {first, second}


def test_the_cache_grows_with_use(tiny_model: TinyModel) -> None:
    model = tiny_model(eos_token_ids=(), max_position_embeddings=100_000)
    engine = Engine(model, batch_size=64)
    sampling = Sampling(temperature=0, max_new_tokens=99_000)
    for prompt in ([5], [6], [7]):
        engine.submit(Request(prompt, sampling=sampling))
    for _ in range(200):
        engine.step()
    assert engine._cache.rows <= 4 and engine._cache.slots <= 400


@pytest.mark.usefixtures("unchecked_types")
@pytest.mark.parametrize("wrong", [0, -1, 1.5, "8", True])
def test_batch_size_must_be_at_least_one(tiny_model: TinyModel, wrong: Any) -> None:
    with pytest.raises(UserError, match=f"batch_size={wrong!r} must be a whole number .* try 32"):
        Engine(tiny_model(), batch_size=wrong)
    with pytest.raises(UserError, match=f"tokens={wrong!r} must be a whole number .* try 512"):
        Engine(tiny_model(), prompt_tokens=wrong)
    with pytest.raises(UserError, match="batch_size=None must be a whole number"):
        generate(tiny_model(), [Request([5])], batch_size=None)  # type: ignore[arg-type]


# Ends, masks and the most likely tokens.


def test_stop_ids_end_a_completion(tiny_model: TinyModel, tokenizer: Tokenizer) -> None:
    model = tiny_model(eos_token_ids=())
    sampling = Sampling(temperature=1.0, max_new_tokens=40, seed=5)
    free = generate(model, [Request(prompt="the", sampling=sampling)], tokenizer)[0]
    end = next(i for i in free.ids[5:] if i < tokenizer.vocab_size and i not in free.ids[:5])
    request = Request(prompt="the", sampling=replace(sampling, stop_ids=(319, end)))
    [cut] = generate(model, [request], tokenizer)
    assert cut.ids == free.ids[: free.ids.index(end) + 1] and cut.finish_reason == "stop"
    assert free.text.startswith(cut.text.rstrip("\ufffd"))
    assert_same([cut], reference_generate(model, [request], tokenizer))


def even_and_once(so_far: Sequence[int]) -> torch.Tensor | None:
    """Only even tokens, none of them twice, and any token after ten."""
    if len(so_far) >= 10:
        return None
    return (torch.arange(320) % 2 == 0).index_fill(0, torch.tensor(so_far, dtype=torch.int64), 0)


@pytest.mark.parametrize(
    "sampling", [Sampling(temperature=0.0), Sampling(top_p=0.9, repetition_penalty=0.5)]
)
def test_a_mask_restricts_the_next_token(tiny_model: TinyModel, sampling: Sampling) -> None:
    model = tiny_model(eos_token_ids=())
    sampling = replace(sampling, max_new_tokens=20)
    free, held = (Request([5, 6], sampling=sampling, mask=mask) for mask in (None, even_and_once))
    ours = generate(model, [free, held])
    assert_same(ours, reference_generate(model, [free, held]))
    first = ours[1].ids[:10]
    assert all(token % 2 == 0 for token in first) and len(set(first)) == 10
    logits = model.logits(Batch.of(torch.tensor([[5, 6, *ours[1].ids]])))[0]
    raw = logits.log_softmax(-1)[1:-1].gather(-1, torch.tensor(ours[1].ids)[:, None])[:, 0]
    assert_close(torch.tensor(ours[1].logprobs), raw, rtol=0, atol=1e-4)


@pytest.mark.usefixtures("unchecked_types")
@pytest.mark.parametrize("kind", [np.array, list])
def test_a_mask_may_be_an_array_or_a_list(tiny_model: TinyModel, kind: Callable[..., Any]) -> None:
    def other(so_far: Sequence[int]) -> Any:
        return None if (mask := even_and_once(so_far)) is None else kind(mask.tolist())

    model = tiny_model(eos_token_ids=())
    request = Request([5, 6], sampling=Sampling(temperature=0.0, max_new_tokens=12))
    requests = [replace(request, mask=one) for one in (other, even_and_once)]
    assert_same(*([one] for one in generate(model, requests)))


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (lambda ids: torch.zeros(320, dtype=torch.bool), "after 0 tokens a mask allows no token"),
        (lambda ids: torch.ones(300, dtype=torch.bool), r"shape \(300,\); it must return one bool"),
        (lambda ids: torch.ones(320), "a mask returned torch.float32"),
        (lambda ids: {5, 6}, r"a mask returned \{5, 6\}; it must return one bool"),
    ],
)
@pytest.mark.usefixtures("unchecked_types")
def test_a_failing_mask_ends_only_its_request(
    tiny_model: TinyModel, mask: Callable[[Sequence[int]], torch.Tensor], message: str
) -> None:
    model, engine = tiny_model(eos_token_ids=()), Engine(tiny_model(eos_token_ids=()))
    good = Request([5, 6], sampling=Sampling(temperature=0.0, max_new_tokens=6))
    bad = replace(good, mask=mask)
    engine.submit(bad)
    engine.submit(good)
    events = list(steps(engine))
    failed = [event for event in events if event.error is not None]
    assert [(event.id, event.finished, event.token) for event in failed] == [(0, True, None)]
    with pytest.raises(UserError, match=message):
        raise failed[0].error  # type: ignore[misc]
    completions = [event.completion for event in events if event.completion is not None]
    assert_same(completions, reference_generate(model, [good]))
    with pytest.raises(UserError, match=message):
        generate(model, [good, bad])


def test_the_most_likely_tokens_are_reported_on_request(tiny_model: TinyModel) -> None:
    model = tiny_model(eos_token_ids=())
    drawn = Sampling(temperature=1.5, top_k=50, repetition_penalty=1.3, max_new_tokens=7)
    requests = [Request([5, 6], sampling=drawn, top_logprobs=n) for n in (3, 0, 5, 1000)]
    ours = generate(model, requests)
    assert ours[1].top_logprobs is None
    reference = reference_generate(model, requests)
    for n, one, other in zip((3, 0, 5, 320), ours, reference, strict=True):
        if not n:
            continue
        assert one.top_logprobs is not None and other.top_logprobs is not None
        assert [len(top) for top in one.top_logprobs] == [n] * 7
        for top, slow in zip(one.top_logprobs, other.top_logprobs, strict=True):
            values = torch.tensor(list(top.values()))
            assert_close(values, torch.tensor(list(slow.values())), rtol=0, atol=1e-4)
            assert (values.diff() <= 0).all()
    assert ours[3].top_logprobs is not None
    for token, logprob, top in zip(
        ours[3].ids, ours[3].logprobs, ours[3].top_logprobs, strict=True
    ):
        assert top[token] == pytest.approx(logprob, abs=1e-5)
    with pytest.raises(UserError, match="top_logprobs=-1 must be 0"):
        Request([5], top_logprobs=-1)


def test_the_index_of_a_copy_can_be_given(tiny_model: TinyModel) -> None:
    model = tiny_model(eos_token_ids=())
    request = Request([5, 6], sampling=Sampling(temperature=1.0, max_new_tokens=8))
    expected = reference_generate(model, [request] * 3)
    engine = Engine(model)
    for copy in (2, 0, 1, 2):
        engine.submit(request, copy)
    found = {event.id: event.completion for event in steps(engine) if event.completion}
    assert_same([found[i] for i in range(4)], [expected[n] for n in (2, 0, 1, 2)])


def test_text_pieces_joined_are_the_text(tiny_model: TinyModel, tokenizer: Tokenizer) -> None:
    engine = Engine(tiny_model(eos_token_ids=()), tokenizer, batch_size=3)
    for seed in range(8):
        sampling = Sampling(1.5, max_new_tokens=30, seed=seed, stop=("e s", "\u00e9", "th"))
        engine.submit(Request(prompt="the", sampling=sampling))
    shown: dict[int, str] = {}
    whole: dict[int, str] = {}
    for event in steps(engine):
        shown[event.id] = shown.get(event.id, "") + event.text
        if event.completion is not None:
            whole[event.id] = event.completion.text
    assert shown == whole and len(whole) == 8


def test_a_request_with_nan_fails_alone_and_leaves_nothing_in_the_cache(tiny_model) -> None:  # type: ignore[no-untyped-def]
    """NaN times a weight of 0 is NaN, so the row's keys and values must be removed."""
    model = tiny_model()
    greedy = Sampling(temperature=0, max_new_tokens=6)
    sound = [[5, 6, 7, 8], list(range(20, 45)), [9] * 20]
    expected = [generate(model, [Request(prompt_ids=ids, sampling=greedy)])[0].ids for ids in sound]
    with torch.no_grad():
        model.model.embed_tokens.weight = torch.nn.Parameter(model.head.detach().clone())
        model.model.embed_tokens.weight[77] = torch.nan
    engine = Engine(model, batch_size=2)
    bad = engine.submit(Request(prompt_ids=[3, 77, *range(4, 40)], sampling=greedy))
    numbers = [engine.submit(Request(prompt_ids=ids, sampling=greedy)) for ids in sound]
    found, errors = {}, {}
    while engine.unfinished:
        for event in engine.step():
            if event.error is not None:
                errors[event.id] = str(event.error)
            if event.completion is not None:
                found[event.id] = event.completion.ids
    assert list(errors) == [bad] and "not finite (NaN or infinite)" in errors[bad]
    assert [found[number] for number in numbers] == expected


def test_seen_tokens_of_a_row_are_collected_once(
    tiny_model: TinyModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Other rows join and finish, and the row moves: nothing is collected again."""
    found: list[int] = []
    tokens = SequenceState.tokens.fget
    assert tokens is not None

    def watched(row: SequenceState) -> list[int]:
        found.append(row.id)
        return tokens(row)

    monkeypatch.setattr(SequenceState, "tokens", property(watched))
    engine = Engine(tiny_model(), batch_size=4, share_prefixes=False)
    requests = [
        Request([3 + n, 4], sampling=Sampling(0.0, repetition_penalty=1.2, max_new_tokens=length))
        for n, length in enumerate([2, 9, 4, 12, 3, 7, 5])
    ]
    serve(engine, requests, random.Random(0))
    assert sorted(found) == [*range(len(requests))]
