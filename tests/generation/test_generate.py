from __future__ import annotations

import gc
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from tests.conftest import TinyModel
from torch.testing import assert_close
from transformers import Qwen3Config, Qwen3ForCausalLM

from groundup.adapters.attach import add_lora
from groundup.errors import UserError
from groundup.formats.hf_config import config_to_hf
from groundup.generation.generate import generate, reference_generate, stream
from groundup.generation.request import Completion, Detokenizer, Request
from groundup.generation.sampling import Sampling
from groundup.lm.logprobs import score
from groundup.lm.model import CausalLM
from groundup.text.example import Example
from groundup.text.tokenizer import Tokenizer
from groundup.train.batch import Batch

GREEDY = Sampling(temperature=0.0, max_new_tokens=20)
DRAWN = Sampling(temperature=1.0, top_p=0.9, max_new_tokens=20, seed=5)
PENALISED = Sampling(temperature=0.7, top_k=30, min_p=0.01, repetition_penalty=1.2, seed=1)
COUNTED = Sampling(temperature=0.7, presence_penalty=0.6, frequency_penalty=-0.8, seed=2)


@pytest.fixture
def model(tiny_model) -> CausalLM:  # type: ignore[no-untyped-def]
    """A model whose rows end at different times: one token in 32 ends a completion."""
    made: CausalLM = tiny_model(eos_token_ids=tuple(range(0, 320, 32)))
    return made


def ragged(sampling: Sampling, count: int = 9) -> list[Request]:
    generator = torch.Generator().manual_seed(0)
    lengths = torch.randint(1, 30, (count,), generator=generator).tolist()
    return [
        Request(
            prompt_ids=torch.randint(3, 320, (length,), generator=generator).tolist(),
            sampling=replace(sampling, max_new_tokens=5 + 3 * i),
        )
        for i, length in enumerate(lengths)
    ]


def assert_same(ours: list[Completion], others: list[Completion]) -> None:
    assert [c.ids for c in ours] == [c.ids for c in others]
    assert [c.finish_reason for c in ours] == [c.finish_reason for c in others]
    for one, other in zip(ours, others, strict=True):
        assert_close(torch.tensor(one.logprobs), torch.tensor(other.logprobs), rtol=0, atol=1e-4)


def test_dropout_is_off_in_every_mode(tiny_model: TinyModel) -> None:
    """A model in training mode answers and is scored as in evaluation mode, and keeps its mode."""
    model = add_lora(tiny_model(), rank=4, dropout=0.5)
    with torch.no_grad():
        for weight in model.parameters():
            weight.normal_(std=0.3)
    requests, items = ragged(DRAWN), [Example(list(range(3, 40)), [True] * 37)]
    answers = [one.ids for one in generate(model.eval(), requests)]
    (scored,) = score(model, items, context=64)
    assert [one.ids for one in generate(model.train(), requests)] == answers
    assert [one.ids for one in reference_generate(model, requests)] == answers
    assert score(model, items, context=64)[0].tolist() == scored.tolist()
    assert all(part.training for part in model.modules())
    model.eval().model.train()
    assert [one.ids for one in generate(model, requests)] == answers
    assert score(model, items, context=64)[0].tolist() == scored.tolist()


@pytest.mark.parametrize(
    "sampling", [GREEDY, DRAWN, PENALISED, COUNTED], ids=["greedy", "drawn", "all", "counted"]
)
def test_cached_and_batched_equal_token_by_token_without_a_cache(
    model: CausalLM, sampling: Sampling
) -> None:
    requests = ragged(sampling)
    together = generate(model, requests)
    assert_same(together, reference_generate(model, requests))
    assert_same(together, [generate(model, [request])[0] for request in requests])
    assert_same(together, generate(model, requests, batch_size=2))
    reasons = {completion.finish_reason for completion in together}
    assert reasons == {"stop", "length"}, "the test should see rows leave and rows stay"


def test_greedy_ids_equal_transformers(tiny_model) -> None:  # type: ignore[no-untyped-def]
    ours = tiny_model(eos_token_ids=())
    config = Qwen3Config(**config_to_hf(ours.config))
    theirs = Qwen3ForCausalLM(config).eval()
    theirs.load_state_dict(ours.state_dict())
    prompt = [5, 99, 301, 7]
    output = theirs.generate(torch.tensor([prompt]), max_new_tokens=20, do_sample=False)
    expected = output[0, len(prompt) :].tolist()
    assert generate(ours, [Request(prompt_ids=prompt, sampling=GREEDY)])[0].ids == expected


def test_logprobs_are_those_of_the_raw_distribution(model: CausalLM) -> None:
    sampling = Sampling(temperature=2.0, top_k=5, max_new_tokens=8)
    [completion] = generate(model, [Request(prompt_ids=[4, 5, 6], sampling=sampling)])
    ids = torch.tensor([[4, 5, 6, *completion.ids]])
    raw = model.logits(Batch.of(ids)).log_softmax(-1)[0, 2:-1]
    expected = raw.gather(-1, ids[0, 3:, None])[:, 0]
    assert_close(torch.tensor(completion.logprobs), expected, rtol=0, atol=1e-4)


def test_presence_and_frequency_count_sampled_tokens_but_not_the_prompt(
    tiny_model: TinyModel,
) -> None:
    """Ids are those of a loop over the formula; log-probabilities are those before the
    penalties."""
    model = tiny_model(eos_token_ids=())
    prompts = [torch.randint(3, 320, (n,), generator=torch.manual_seed(n)).tolist() for n in (4, 9)]
    ways = [
        {},
        {"presence_penalty": 2.0},
        {"frequency_penalty": 0.9},
        {"presence_penalty": -1.2, "frequency_penalty": 0.5},
        {"frequency_penalty": -2.0},
    ]
    asked, expected, most = [], [], []
    for prompt in prompts:
        for way in ways:
            # The prompt contains these tokens, which must not matter.
            prompt_ids = [*prompt, *generate(model, [Request(prompt, sampling=GREEDY)])[0].ids[:8]]
            sampling = replace(GREEDY, **way)
            asked.append(Request(prompt_ids, sampling=sampling))
            ids: list[int] = []
            logprobs: list[float] = []
            while len(ids) < GREEDY.max_new_tokens:
                with torch.no_grad():
                    logits = model.logits(Batch.of(torch.tensor([prompt_ids + ids])))[0, -1]
                changed = logits.clone()
                for token in set(ids):
                    changed[token] -= sampling.frequency_penalty * ids.count(token)
                    changed[token] -= sampling.presence_penalty
                ids.append(int(changed.argmax()))
                logprobs.append(float(logits.log_softmax(-1)[ids[-1]]))
            expected.append(Completion("", ids, logprobs, "length"))
            most.append(max(map(ids.count, ids)))
    assert_same(generate(model, asked), expected)
    assert len({tuple(one.ids) for one in expected}) == len(expected), most


def test_sampling_may_differ_between_requests_and_order_does_not_matter(
    model: CausalLM,
) -> None:
    requests = ragged(GREEDY, 3) + ragged(DRAWN, 4) + ragged(PENALISED, 3) + ragged(COUNTED, 3)
    forwards = generate(model, requests)
    assert_same(forwards, generate(model, requests[::-1])[::-1])
    # Also for one prompt with one seed.
    requests = [Request([5, 6], sampling=replace(DRAWN, temperature=t)) for t in (0.5, 2.0)]
    forwards = generate(model, requests)
    assert_same(forwards, generate(model, requests[::-1])[::-1])
    assert_same(forwards, [generate(model, [request])[0] for request in requests])


def test_a_repeated_request_differs_and_a_seed_reproduces_it(model: CausalLM) -> None:
    request = Request(prompt_ids=[5, 6], sampling=replace(DRAWN, top_p=1.0))
    four = generate(model, [request] * 4)
    assert len({tuple(completion.ids) for completion in four}) == 4
    assert_same(generate(model, [request] * 4), four)
    assert_same(generate(model, [request]), four[:1])
    other = replace(request, sampling=replace(request.sampling, seed=4))
    assert generate(model, [other])[0].ids != four[0].ids


@pytest.mark.usefixtures("unchecked_types")
def test_prompt_ids_of_any_container_are_the_same_prompt(model: CausalLM) -> None:
    requests = [
        Request(ids, sampling=replace(DRAWN, temperature=20.0, ignore_eos=True))  # type: ignore[arg-type]
        for ids in ([5, 6, 7], (5, 6, 7), np.array([5, 6, 7]), torch.tensor([5, 6, 7]))
    ]
    first, *others = [generate(model, [request])[0] for request in requests]
    assert all(other.ids == first.ids for other in others)
    # Together they are one request made four times.
    together = generate(model, requests)
    assert len({tuple(one.ids) for one in together}) == 4
    assert_same(together, generate(model, requests[:1] * 4))


def test_a_shorter_limit_gives_a_prefix(tiny_model) -> None:  # type: ignore[no-untyped-def]
    model = tiny_model(eos_token_ids=())
    long, short = (
        generate(model, [Request([7, 8], sampling=replace(DRAWN, max_new_tokens=n))])[0]
        for n in (40, 10)
    )
    assert long.ids[:10] == short.ids


def test_random_numbers_are_kept_only_for_running_requests(tiny_model) -> None:  # type: ignore[no-untyped-def]
    limit, kept = 100_003, list[int]()
    model = tiny_model(eos_token_ids=tuple(range(320)), max_position_embeddings=2 * limit)

    def length(one: object) -> int:
        if type(one) is torch.Tensor:
            return one.numel()
        return len(one) if type(one) is list else 0

    def look(ids: Sequence[int]) -> None:
        kept.append(sum(length(one) == limit for one in gc.get_objects()))

    sampling = replace(DRAWN, max_new_tokens=limit)
    requests = [Request([5 + n], sampling=sampling, mask=look) for n in range(6)]
    generate(model, requests, batch_size=2)
    assert len(kept) == 6 and max(kept) <= 2, kept


# Ignored ends.


@pytest.mark.parametrize(
    "sampling", [GREEDY, DRAWN, PENALISED, COUNTED], ids=["greedy", "drawn", "all", "counted"]
)
def test_a_request_may_end_by_length_only(model: CausalLM, sampling: Sampling) -> None:
    stopping, going_on = ragged(sampling), ragged(replace(sampling, ignore_eos=True))
    ended, whole = generate(model, stopping), generate(model, going_on)
    assert any(one.finish_reason == "stop" for one in ended)
    for request, one, other in zip(going_on, ended, whole, strict=True):
        assert other.finish_reason == "length"
        assert len(other.ids) == request.sampling.max_new_tokens
        assert other.ids[: len(one.ids)] == one.ids  # the ends are drawn, and gone past
    assert_same(whole, reference_generate(model, going_on))
    assert_same(whole, [generate(model, [request])[0] for request in going_on])


def test_with_ignored_ends_the_requests_stops_still_count(model: CausalLM) -> None:
    [free] = generate(model, [Request([5, 6], sampling=replace(GREEDY, ignore_eos=True))])
    stop = replace(GREEDY, ignore_eos=True, stop_ids=(free.ids[7],))
    [stopped] = generate(model, [Request([5, 6], sampling=stop)])
    assert stopped.finish_reason == "stop"
    assert stopped.ids == free.ids[: free.ids.index(free.ids[7]) + 1]


@pytest.mark.every(5)
@pytest.mark.parametrize("least", [1, 3, 5])
@pytest.mark.parametrize(
    "sampling", [GREEDY, DRAWN, PENALISED, COUNTED], ids=["greedy", "drawn", "all", "counted"]
)
def test_no_end_occurs_before_min_new_tokens(
    model: CausalLM, sampling: Sampling, least: int
) -> None:
    ends = {*model.config.eos_token_ids, 7}
    requests = ragged(replace(sampling, min_new_tokens=least, stop_ids=(7,)))
    completions = generate(model, requests)
    assert all(not ends & set(one.ids[:least]) for one in completions)
    assert all(len(one.ids) > least or one.finish_reason == "length" for one in completions)
    assert any(one.finish_reason == "stop" for one in completions)
    assert_same(completions, reference_generate(model, requests))


def test_min_new_tokens_equals_transformers(tiny_model) -> None:  # type: ignore[no-untyped-def]
    ours = tiny_model(eos_token_ids=tuple(range(0, 320, 2)))  # half of all tokens
    theirs = Qwen3ForCausalLM(Qwen3Config(**config_to_hf(ours.config))).eval()
    theirs.load_state_dict(ours.state_dict())
    for prompt in ([5, 99, 301, 7], [8], [11, 12]):
        output = theirs.generate(
            torch.tensor([prompt]), max_new_tokens=20, min_new_tokens=6, do_sample=False,
            eos_token_id=list(ours.config.eos_token_ids), pad_token_id=1,
        )  # fmt: skip
        sampling = replace(GREEDY, min_new_tokens=6)
        [found] = generate(ours, [Request(prompt_ids=prompt, sampling=sampling)])
        assert found.ids == output[0, len(prompt) :].tolist()


def test_stop_strings_count_only_after_min_new_tokens(
    model: CausalLM, tokenizer: Tokenizer
) -> None:
    free = Sampling(temperature=1.0, seed=3, max_new_tokens=30, ignore_eos=True)
    [all_of_it] = generate(model, [Request([5, 6], sampling=free)], tokenizer)
    shown = Detokenizer(tokenizer, ())
    pieces = [shown.push(token) for token in all_of_it.ids]
    stop = next(piece for piece in pieces[:10] if piece and piece in "".join(pieces[10:]))
    for least in (0, 1, 10, 30):
        sampling = replace(free, stop=(stop,), min_new_tokens=least)
        [held] = generate(model, [Request([5, 6], sampling=sampling)], tokenizer)
        exempt, rest = "".join(pieces[:least]), all_of_it.text[len("".join(pieces[:least])) :]
        assert held.text == exempt + rest.partition(stop)[0]
        assert held.finish_reason == ("stop" if stop in rest else "length")
        assert len(held.ids) > least or least == 30


def test_min_new_tokens_conflicts_with_a_mask_that_allows_only_ends(model: CausalLM) -> None:
    only = torch.zeros(320, dtype=torch.bool)
    only[list(model.config.eos_token_ids)] = True
    request = Request([5], sampling=replace(GREEDY, min_new_tokens=2), mask=lambda ids: only)
    with pytest.raises(UserError, match="min_new_tokens=2"):
        generate(model, [request])
    with pytest.raises(UserError, match="min_new_tokens=21"):
        replace(GREEDY, min_new_tokens=21)
    with pytest.raises(UserError, match="min_new_tokens=-1"):
        replace(GREEDY, min_new_tokens=-1)


def test_bf16_generates(tiny_model) -> None:  # type: ignore[no-untyped-def]
    completions = generate(tiny_model().to(torch.bfloat16), ragged(PENALISED, 3))
    assert all(torch.tensor(c.logprobs).isfinite().all() for c in completions)


def test_autocast_does_not_change_answers(tiny_model: TinyModel) -> None:
    model, requests = tiny_model(), ragged(DRAWN)
    answers = generate(model, requests)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert generate(model, requests) == answers


def test_training_continues_after_generation(model: CausalLM) -> None:
    generate(model, ragged(DRAWN, 2))
    model.logits(Batch.of(torch.randint(320, (2, 8)))).logsumexp(-1).sum().backward()
    assert model.head.grad is not None and not model.head.is_inference()


# Length.


def test_a_completion_ends_at_the_context_length(tiny_model) -> None:  # type: ignore[no-untyped-def]
    model = tiny_model(eos_token_ids=())
    context = model.config.max_position_embeddings
    for length, room in ((context - 5, 5), (context, 0)):
        request = Request(prompt_ids=[9] * length, sampling=GREEDY)
        for completion in (*generate(model, [request]), *reference_generate(model, [request])):
            assert (len(completion.ids), completion.finish_reason) == (room, "length")


def test_stopping_on_the_last_allowed_token_is_a_stop(tiny_model) -> None:  # type: ignore[no-untyped-def]
    model = tiny_model(eos_token_ids=tuple(range(320)))
    request = Request(prompt_ids=[9], sampling=replace(GREEDY, max_new_tokens=1))
    [completion] = generate(model, [request])
    assert completion.finish_reason == "stop" and len(completion.ids) == 1


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (Request(prompt_ids=[9] * 65), "65 tokens, more than the model's context of 64"),
        (Request(prompt_ids=[]), "the prompt is empty"),
        (Request(prompt_ids=[5, 320]), "token id 320 is outside the model's vocabulary of 320"),
        (Request(prompt_ids=[-1]), "token id -1 is outside"),
        (Request(prompt="The sea"), "needs a tokenizer"),
        (Request(prompt_ids=[5], sampling=Sampling(stop=("sea",))), "stop strings need"),
    ],
)
def test_rejects_impossible_requests(model: CausalLM, request_: Request, message: str) -> None:
    with pytest.raises(UserError, match=message):
        generate(model, [request_])


def test_a_request_has_exactly_one_prompt() -> None:
    with pytest.raises(UserError, match="has no prompt"):
        Request()
    with pytest.raises(UserError, match="has prompt_ids and prompt;"):
        Request(prompt_ids=[1], prompt="x")


# Text.


def test_text_and_messages_become_the_ids_of_training(
    model: CausalLM, tokenizer: Tokenizer
) -> None:
    by_text = generate(model, [Request(prompt="the sea", sampling=DRAWN)], tokenizer)
    ids = [tokenizer.end_of_text, *tokenizer.encode("the sea")]
    assert_same(by_text, generate(model, [Request(prompt_ids=ids, sampling=DRAWN)], tokenizer))
    messages = [{"role": "user", "content": "the sea"}]
    by_chat = generate(model, [Request(messages=messages, sampling=DRAWN)], tokenizer)
    chat = "user\nthe sea", "assistant\n"
    ids = [
        tokenizer.im_start, *tokenizer.encode(chat[0]), tokenizer.im_end, *tokenizer.encode("\n"),
        tokenizer.im_start, *tokenizer.encode(chat[1]),
    ]  # fmt: skip
    assert_same(by_chat, generate(model, [Request(prompt_ids=ids, sampling=DRAWN)], tokenizer))


@pytest.mark.parametrize("seed", range(8))
def test_the_joined_stream_is_the_text(model: CausalLM, tokenizer: Tokenizer, seed: int) -> None:
    sampling = Sampling(temperature=1.5, max_new_tokens=40, seed=seed, stop=("e s", "\u00e9"))
    request = Request(prompt="the", sampling=sampling)
    [completion] = generate(model, [request], tokenizer)
    assert "".join(stream(model, tokenizer, request)) == completion.text
    spoken = [i for i in completion.ids if i not in tokenizer.special_ids]
    whole = tokenizer.decode([i for i in spoken if i < tokenizer.vocab_size])
    assert whole.startswith(completion.text.rstrip("\ufffd"))
    assert not any(stop in completion.text for stop in sampling.stop)


def test_a_stop_string_ends_the_text_before_it_and_keeps_its_tokens(
    tiny_model, tokenizer: Tokenizer
) -> None:  # type: ignore[no-untyped-def]
    model = tiny_model(eos_token_ids=())
    sampling = Sampling(temperature=1.0, max_new_tokens=50, seed=5)
    [free] = generate(model, [Request(prompt="the", sampling=sampling)], tokenizer)
    stop = free.text[20:24]
    sampling = replace(sampling, stop=("never to be seen", stop))
    [cut] = generate(model, [Request(prompt="the", sampling=sampling)], tokenizer)
    assert cut.text == free.text[: free.text.index(stop)]
    assert cut.finish_reason == "stop"
    assert free.ids[: len(cut.ids)] == cut.ids and len(cut.ids) < len(free.ids)


def spell(tokenizer: Tokenizer, text: str, stop: tuple[str, ...]) -> list[str]:
    """The pieces shown when `text` arrives byte by byte."""
    shown = Detokenizer(tokenizer, stop)
    single = {tokenizer.token_bytes(i): i for i in range(tokenizer.vocab_size)}
    pieces = [shown.push(single[bytes([byte])]) for byte in text.encode()]
    return [*pieces, shown.finish()]


@pytest.mark.parametrize(
    ("text", "stop", "expected"),
    [
        ("a cat sat", ("cow",), "a cat sat"),
        ("a cow sat", ("cow",), "a "),
        ("cococow", ("cocow",), "co"),
        ("ab", ("abc",), "ab"),
        ("caf\u00e9 cr\u00e8me", ("\u00e8",), "caf\u00e9 cr"),
        ("x\nUser: y", ("\nUser:", "y"), "x"),
        ("\U0001f600!", (), "\U0001f600!"),
    ],
)
def test_shown_text_is_never_retracted(
    tokenizer: Tokenizer, text: str, stop: tuple[str, ...], expected: str
) -> None:
    assert "".join(spell(tokenizer, text, stop)) == expected


def test_text_is_shown_as_soon_as_it_is_certain(tokenizer: Tokenizer) -> None:
    assert spell(tokenizer, "acob", ("cow",)) == ["a", "", "", "cob", ""]
    assert spell(tokenizer, "\u00e9!", ()) == ["", "\u00e9", "!", ""]


@pytest.mark.usefixtures("unchecked_types")
def test_an_invalid_request_is_reported_in_a_sentence(
    model: CausalLM, tokenizer: Tokenizer
) -> None:
    with pytest.raises(
        UserError, match=r"requests\[0\]='hi' is of type str; write groundup\.Request"
    ):
        generate(model, ["hi"], tokenizer)  # type: ignore[list-item]
    for single in ("hi", Request(prompt="hi"), None):
        with pytest.raises(UserError, match="pass a list of it"):
            generate(model, single, tokenizer)  # type: ignore[arg-type]
    for ids in ([5, 6.5], "56", torch.tensor([[5, 6]])):
        with pytest.raises(UserError, match=r"prompt_ids=.*5.* must be a list of whole numbers"):
            generate(model, [Request(ids)])  # type: ignore[arg-type]
    settings: list[tuple[dict[str, Any], str]] = [
        ({"prompt": 5}, "prompt=5 is of type int; give a text"),
        ({"prompt": "x", "top_logprobs": 1.5}, "top_logprobs=1.5 must be"),
        ({"prompt": "x", "top_logprobs": True}, "top_logprobs=True must be"),
        ({"prompt": "x", "mask": [True]}, "is of type list; give a function"),
        ({"prompt": "x", "sampling": {"temperature": 1}}, "is of type dict; write"),
    ]
    for wrong, told in settings:
        with pytest.raises(UserError, match=told):
            Request(**wrong)


@pytest.mark.usefixtures("unchecked_types")
def test_requests_may_be_an_iterator(model: CausalLM) -> None:
    requests = ragged(DRAWN)
    assert_same(generate(model, iter(requests)), generate(model, requests))


@pytest.mark.usefixtures("unchecked_types")
def test_a_folder_passed_instead_of_a_model_is_reported(
    model: CausalLM, tokenizer: Tokenizer
) -> None:
    folder: Any = "runs/sft"
    request = Request(prompt="hi", sampling=DRAWN)
    with pytest.raises(UserError, match=r"model='runs/sft' is a path; load it first"):
        generate(folder, [request], tokenizer)
    with pytest.raises(UserError, match=r"tokenizer='runs/sft' is a path; load it first"):
        generate(model, [request], folder)
    with pytest.raises(UserError, match=r"guard='runs/sft' is a path; load .*load_guard"):
        generate(model, [request], tokenizer, guard=folder)
    with pytest.raises(UserError, match=r"tokenizer='runs/sft'"):
        list(stream(model, folder, request))
