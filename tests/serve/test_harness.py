"""The lm-evaluation-harness gets the same results through the server as directly."""

from __future__ import annotations

import pytest
from lm_eval.api.instance import Instance
from lm_eval.models.openai_completions import LocalCompletionsAPI
from tests.conftest import Workshop
from tests.serve.conftest import GREEDY, Serve

import groundup
from groundup.generation.generate import generate
from groundup.generation.request import Request
from groundup.generation.sampling import Sampling
from groundup.lm.logprobs import score
from groundup.serve.worker import Served
from groundup.text.example import Example

PAIRS = [("The sea", " is blue."), ("The grass is", " green."), ("Snow", " and coal are white.")]


def test_the_harness_finds_the_same_likelihoods_and_texts(workshop: Workshop, serve: Serve) -> None:
    folder = workshop.finished("sft")
    model, tokenizer = groundup.load(folder)
    running = serve(Served("sft", model, tokenizer, GREEDY))
    harness = LocalCompletionsAPI(
        base_url=f"{running.address}/v1/completions",
        model="sft",
        tokenizer=str(folder),
        tokenizer_backend="huggingface",
        max_length=64,
    )
    asked = [Instance("loglikelihood", {}, pair, 0) for pair in PAIRS]
    found = harness.loglikelihood(asked, disable_tqdm=True)
    for (before, after), (logprob, _) in zip(PAIRS, found, strict=True):
        ids, start = tokenizer.encode(before + after), len(tokenizer.encode(before))
        mask = [place >= start for place in range(len(ids))]
        [expected] = score(model, [Example(ids, mask)], context=64)
        assert logprob == pytest.approx(expected.sum(), abs=1e-4)
    until = Instance("generate_until", {}, ("The sea", {"until": ["!"], "max_gen_toks": 9}), 0)
    [text] = harness.generate_until([until], disable_tqdm=True)
    ids = tokenizer.encode("The sea")
    way = Sampling(temperature=0, max_new_tokens=9, stop=("!",))
    [alone] = generate(model, [Request(prompt_ids=ids, sampling=way)], tokenizer)
    assert text == alone.text
