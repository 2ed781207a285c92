"""Own parts of steps 3 to 5 in groundup: they are called, and results are unchanged."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import ModuleType

import pytest
import torch

from groundup.align.config import DPOConfig, GRPOConfig, PPOConfig, RewardConfig
from groundup.align.dpo import run as dpo
from groundup.align.grpo import run as grpo
from groundup.align.ppo import run as ppo
from groundup.align.reward import run as reward
from groundup.formats.adapter import model_hash
from groundup.generation.generate import generate
from groundup.generation.request import Request
from groundup.generation.sampling import Sampling
from groundup.kernels import library as kernels
from groundup.learn.exercise import Exercise, module_of
from groundup.learn.judge import judge
from groundup.learn.plain import plain_path
from groundup.learn.road import find, road
from groundup.lm.model import CausalLM
from groundup.pretrain.config import PretrainConfig
from groundup.pretrain.stage import run as pretrain
from groundup.text.bpe import train_bpe
from groundup.train.device import compute_dtype

# Functions without a counterpart in groundup: they are for understanding only.
APART = {
    "model_card": {"says"},
    "bpe": {"byte_ids"},
    "attention": {"split_heads"},
    "heads": {"induction_score"},
    "replay": {"times_seen", "forgotten"},
    "preferences": {"beats"},
    "reward_model": {"pair_weights", "length_leak"},
    "ppo_clip": {"clipped_share"},
}
SEAMS = [one for one in road() if one.step >= 3 and one.has_seam]
TinyModel = Callable[..., CausalLM]


def counted(exercise: Exercise, calls: dict[str, int]) -> ModuleType:
    """The shipped solution, with counted calls of its functions."""
    part = module_of(exercise.folder / "solution.py", exercise.name)
    for name in exercise.functions:

        def count(*given: object, name: str = name, plain: object = getattr(part, name)) -> object:
            calls[name] = calls.get(name, 0) + 1
            return plain(*given)  # type: ignore[operator]

        setattr(part, name, count)
    return part


@contextmanager
def parts(*names: str) -> Iterator[dict[str, int]]:
    """The shipped solutions of these exercises inserted, and the number of calls of each."""
    calls: dict[str, int] = {}
    with ExitStack() as stack:
        for exercise in map(find, names):
            stack.enter_context(exercise.page("seam").swap(counted(exercise, calls)))
        yield calls


@pytest.mark.parametrize("exercise", SEAMS, ids=lambda one: one.name)
def test_every_inserted_function_is_called(exercise: Exercise) -> None:
    with parts(exercise.name) as calls:
        exercise.page("seam").try_it()
    assert set(calls) >= set(exercise.functions) - APART.get(exercise.name, set())


def requests() -> list[Request]:
    """Prompts of several lengths with all sampling settings, in one batch."""
    ways = [
        {"temperature": 0.0},
        {"temperature": 1.0},
        {"temperature": 0.7, "top_k": 20},
        {"temperature": 1.3, "top_p": 0.9, "min_p": 0.02},
        {"temperature": 1.0, "top_k": 8, "top_p": 0.7, "repetition_penalty": 1.2},
        {"temperature": 0.9, "presence_penalty": 0.7, "frequency_penalty": -0.4},
    ]
    return [
        Request(
            prompt_ids=[(7 * i + 13 * j) % 320 for j in range(3 + 5 * i)],
            sampling=Sampling(**way, max_new_tokens=12, seed=i),  # type: ignore[arg-type]
        )
        for i, way in enumerate(ways)
    ]


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"model_type": "mistral", "sliding_window": 8},
        {"position_embedding_type": "alibi"},
    ],
    ids=["qwen3", "window", "alibi"],
)
def test_replies_with_own_attention_and_sampler_equal_the_products(
    tiny_model: TinyModel, changes: dict[str, object]
) -> None:
    model = tiny_model(**changes)
    expected = generate(model, requests())
    with parts("rope", "attention", "block", "sampling") as calls:
        found = generate(model, requests())
    assert [one.ids for one in found] == [one.ids for one in expected]
    tokens = sum(len(one.ids) for one in found)
    assert calls["pick"] == calls["probabilities"] == tokens
    # Decoding goes by the model: a step for every token after the first, in each of two layers.
    assert calls["block"] >= 2 * max(len(one.ids) for one in found)
    assert calls["remember"] > calls["block"]


def test_a_wrong_part_changes_the_result(tiny_model: TinyModel) -> None:
    model = tiny_model()
    expected = generate(model, requests())
    part = module_of(find("attention").folder / "solution.py", "attention")
    part.attention = find("attention").page("wrong").no_scale  # type: ignore[attr-defined]
    with find("attention").page("seam").swap(part):
        found = generate(model, requests())
    assert [one.ids for one in found] != [one.ids for one in expected]
    assert [one.ids for one in generate(model, requests())] == [one.ids for one in expected]


def test_kernels_do_not_bypass_a_part(tiny_model: TinyModel) -> None:
    dtype = compute_dtype()
    chosen = kernels.best_kernels(dtype)
    if chosen == "none":
        pytest.skip("this processor has no kernels that could")
    model = tiny_model(head_dim=64, num_attention_heads=2, num_key_value_heads=1).to(dtype)
    kernels.use_kernels(chosen)
    try:
        with parts("attention", "block") as calls:
            assert kernels.best_kernels(dtype) == "none"
            generate(model, requests()[:1])
        assert calls["attention"] and calls["rms_norm"] and calls["swiglu"]
        assert kernels.best_kernels(dtype) == chosen
        assert kernels.in_use(model.like)
    finally:
        kernels.use_kernels("none")


def test_compiled_blocks_do_not_bypass_a_part(tiny_model: TinyModel) -> None:
    model = tiny_model()
    with plain_path():
        model.compile_blocks()
    assert not model.compiled
    assert all(block._compiled_call_impl is None for block in model.blocks)


def losses(run: Path) -> list[float]:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [line["loss"] for line in lines if "loss" in line]


def test_own_loss_schedule_and_attention_train_the_same_model(
    workshop: object, tmp_path: Path
) -> None:
    def trained(name: str) -> list[float]:
        config = PretrainConfig(
            data=workshop.data,  # type: ignore[attr-defined]
            tokenizer=workshop.tokenizer,  # type: ignore[attr-defined]
            out=tmp_path / name,
            depth=1, width=64, context=64, rows=4, micro_rows=2, steps=5, evaluations=1,
            # Muon works in bfloat16, where the last digit of a gradient decides.
            optimizer="adamw", learning_rate=0.001, embedding_learning_rate=0.001,
            compile="off", dtype="float32", threads=1,
        )  # fmt: skip
        return losses(pretrain(config))

    expected = trained("plain")
    with parts("rope", "attention", "block", "training") as calls:
        found = trained("mine")
    assert len(found) == 5
    assert found == pytest.approx(expected, rel=1e-4)
    assert calls["cross_entropy"] == 10  # two micro-batches a step
    assert calls["schedule"] >= 5
    assert calls["bits_per_byte"]


def test_an_own_tokenizer_equals_the_products() -> None:
    texts = [
        "The sea is wide, the sea is deep; the ship sails over the sea. " * 3,
        "Où est-ce? 🐚🐚",
    ]
    expected = train_bpe(texts, 320)
    with parts("bpe") as calls:
        assert train_bpe(texts, 320) == expected
    assert calls["merge"] > 40


@pytest.mark.long
def test_own_dpo_and_lora_train_the_same_adapter(workshop: object, tmp_path: Path) -> None:
    model = workshop.finished("sft")  # type: ignore[attr-defined]

    def trained(name: str) -> list[float]:
        config = DPOConfig(
            model=model,
            data=workshop.data,  # type: ignore[attr-defined]
            out=tmp_path / name,
            adapter="qlora", lora_rank=4, steps=4, rows=4, micro_rows=2, evaluations=1,
            learning_rate=0.01, compile="off", dtype="float32", threads=1,
        )  # fmt: skip
        return losses(dpo(config))

    expected = trained("plain")
    with parts("lora", "nf4", "dpo") as calls:
        found = trained("mine")
    assert found == pytest.approx(expected, rel=1e-3)
    assert calls["lora"] and calls["quantize"] and calls["dpo_losses"] and calls["answer_logprobs"]
    torch.testing.assert_close(
        adapter(tmp_path / "mine"), adapter(tmp_path / "plain"), atol=1e-3, rtol=1e-2
    )


@pytest.mark.long
@pytest.mark.parametrize(
    ("stage", "names", "called"),
    [
        (
            "ppo",
            ("sampling", "gae", "ppo_clip"),
            ("pick", "gae", "token_rewards", "clipped_losses"),
        ),
        ("grpo", ("sampling", "grpo", "ppo_clip"), ("pick", "group_advantages", "kl")),
    ],
)
def test_own_parts_train_a_policy_as_the_products_do(
    workshop: object, tmp_path: Path, stage: str, names: tuple[str, ...], called: tuple[str, ...]
) -> None:
    config, run = {"ppo": (PPOConfig, ppo), "grpo": (GRPOConfig, grpo)}[stage]

    def trained(name: str) -> list[float]:
        made = config(
            model=workshop.finished("sft"),  # type: ignore[attr-defined]
            prompts=workshop.data,  # type: ignore[attr-defined]
            reward=str(workshop.finished("reward")),  # type: ignore[attr-defined]
            out=tmp_path / name,
            episodes=8, minibatches=2, max_new_tokens=8, heldout_prompts=2, steps=4,
            micro_rows=2, evaluations=1, compile="off", dtype="float32", threads=1,
            **({"group_size": 4} if stage == "grpo" else {}),
        )  # fmt: skip
        return losses(run(made))

    expected = trained("plain")
    with parts(*names) as calls:
        found = trained("mine")
    assert found == pytest.approx(expected, rel=1e-3, abs=1e-3)
    assert all(calls[name] for name in called)


@pytest.mark.long
def test_the_last_exercise_is_graded_by_the_stages_output(workshop: object, tmp_path: Path) -> None:
    model = workshop.finished("sft")  # type: ignore[attr-defined]
    votes, blind = tmp_path / "votes.jsonl", tmp_path / "blind.jsonl"
    write_votes(votes, range(20), ["sft", "sft"])
    short = {"steps": 2, "rows": 4, "micro_rows": 2, "evaluations": 1, "compile": "off"}
    short |= {"dtype": "float32", "threads": 1}
    reward(RewardConfig(model=model, data=votes, out=tmp_path / "my-reward", **short))
    dpo(DPOConfig(model=model, data=votes, out=tmp_path / "my-policy", **short))
    hashes = [model_hash(one)[:16] for one in (model, tmp_path / "my-policy")]
    write_votes(blind, range(20, 40), ["sft", "my-policy"], hashes)
    exercise = find("own_pairs")
    folder = tmp_path / "my_groundup"
    folder.mkdir()
    code = (exercise.folder / "solution.py").read_text()
    (folder / "own_pairs.py").write_text(
        code + "\ndef files():\n    return {'votes': 'votes.jsonl', 'reward': 'my-reward', "
        "'policy': 'my-policy', 'blind': 'blind.jsonl'}\n"
    )
    verdict = judge(exercise, module_of(folder / "own_pairs.py", "own_pairs"))
    assert verdict.passed, verdict.lines
    write_votes(blind, range(20, 40), ["sft", "my-policy"], ["another", "model"])
    verdict = judge(exercise, module_of(folder / "own_pairs.py", "own_pairs"))
    assert verdict.named == "another_policy", verdict.lines
    blind.write_text("{")
    verdict = judge(exercise, module_of(folder / "own_pairs.py", "own_pairs"))
    assert "the problem is in the file" in verdict.lines[-1], verdict.lines


def write_votes(log: Path, numbers: range, models: list[str], hashes: Sequence[str] = ()) -> None:
    with log.open("w") as out:
        for number in numbers:
            vote = {
                "prompt": f"What is the colour of thing {number}?",
                "a": "It is blue.", "b": "I do not know.", "choice": "a",
                "who": "me", "when": "2026-01-01", "id": str(number), "models": models,
                "hashes": list(hashes),
            }  # fmt: skip
            out.write(json.dumps(vote) + "\n")


def adapter(run: Path) -> torch.Tensor:
    from safetensors.torch import load_file

    weights = load_file(run / "adapter_model.safetensors")
    return torch.cat([weights[name].flatten() for name in sorted(weights)])
