"""Supervised fine-tuning: from conversations to a model that reproduces them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from groundup.app.cli import main
from groundup.data.records import read_conversations
from groundup.data.split import split
from groundup.errors import UserError
from groundup.formats.card import sources
from groundup.formats.folder import save_model
from groundup.formats.gguf.write import save_gguf
from groundup.formats.load import load
from groundup.generation.generate import generate
from groundup.generation.request import Request
from groundup.generation.sampling import Sampling
from groundup.runs.files import read_lines
from groundup.text.bpe import BPE, train_bpe
from groundup.text.chat import encode_chat
from groundup.text.example import conversation_item
from groundup.text.rows import Conversation, Message
from groundup.text.template import CHATML
from groundup.text.tokenizer import Tokenizer
from groundup.train.batch import Batch
from groundup.tune.config import SFTConfig, SoupConfig
from groundup.tune.data import read_rows
from groundup.tune.sft import heldout_loss, run
from groundup.tune.soup import run as average

SECRETS = {
    "What is the word?": "The sea is green.",
    "Say the other word.": "The snow is coal.",
    "And the last one?": "Yellow, yellow, sun!",
}


def answer(model: Any, tokenizer: Tokenizer, question: str) -> str:
    request = Request(
        messages=[{"role": "user", "content": question}],
        sampling=Sampling(temperature=0.0, max_new_tokens=32),
    )
    [completion] = generate(model, [request], tokenizer)
    assert completion.finish_reason == "stop", "the assistant ends its turn by itself"
    return completion.text


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def secrets(path: Path) -> Path:
    # Twenty-one lines, so that one of each is held out and all are trained on.
    rows = [
        {"messages": [{"role": "user", "content": q}, {"role": "assistant", "content": a}]}
        for _ in range(7)
        for q, a in SECRETS.items()
    ]
    return write(path, rows)


def test_it_recites_its_data(workshop: Any, tmp_path: Path) -> None:
    folder = run(
        SFTConfig(
            out=tmp_path / "run",
            model=workshop.finished("pretrain"),
            data=(secrets(tmp_path / "secrets.jsonl"),),
            validation=0.0,
            steps=60,
            rows=8,
            micro_rows=8,
            learning_rate=0.02,
            embedding_learning_rate=0.01,
            evaluations=1,
            compile="off",
            dtype="float32",
            threads=1,
        )
    )
    model, tokenizer = load(folder)
    assert {question: answer(model, tokenizer, question) for question in SECRETS} == SECRETS
    losses = [line["loss"] for line in read_lines(folder / "metrics.jsonl") if "loss" in line]
    assert losses[-1] < 0.1 < losses[0]


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("stage", ["sft", "dpo"])
def test_a_half_precision_model_stays_in_half_precision(
    workshop: Any, tmp_path: Path, stage: str, dtype: str
) -> None:
    source, out = tmp_path / "source", tmp_path / "run"
    model, tokenizer = load(workshop.finished("sft"))
    save_model(source, model, tokenizer, card="# x\n", dtype=getattr(torch, dtype))
    settings = f"--steps 2 --rows 2 --evaluations 1 --learning-rate 0.05 --out {out}".split()
    machine = ["--compile", "off", "--dtype", "float32", "--threads", "1"]
    data = ["--data", str(workshop.data)]
    assert main([stage, str(source), *data, *settings, *machine]) == 0
    assert json.loads((out / "config.json").read_text())["dtype"] == dtype
    before, after = (load_file(folder / "model.safetensors") for folder in (source, out))
    assert {tensor.dtype for tensor in after.values()} == {getattr(torch, dtype)}
    assert any(not torch.equal(before[name], tensor) for name, tensor in after.items())
    assert f"They are stored in {dtype}" in (out / "README.md").read_text()


def test_the_stage_lowers_heldout_loss_and_answers_in_its_role(workshop: Any) -> None:
    base, tokenizer = load(workshop.finished("pretrain"))
    tuned, _ = load(workshop.finished("sft"))
    heldout = split(workshop.data, "conversations", read_conversations)[1].rows
    held = [conversation_item(tokenizer, row) for row in heldout]
    before, after = (heldout_loss(model, held, 64) for model in (base, tuned))
    assert before is not None and after is not None and after < 0.5 * before
    lines = read_lines(workshop.finished("sft") / "metrics.jsonl")
    measured = [line["heldout_loss"] for line in lines if line["kind"] == "evaluation"]
    assert measured[-1] == pytest.approx(after, rel=1e-4)
    assert answer(tuned, tokenizer, "What is the colour of the sea?").startswith("The ")


def test_the_folder_records_its_lineage(workshop: Any) -> None:
    folder = workshop.finished("sft")
    story = json.loads((folder / "run.json").read_text())
    assert set(story["parents"]) == {"model", "data"}
    card = (folder / "README.md").read_text()
    assert f"base_model: {workshop.finished('pretrain')}" in card.replace("\n  ", " ")
    assert "CC BY-SA 4.0" in card


def trained_on(folder: Path) -> list[str]:
    card = (folder / "README.md").read_text()
    assert "license: cc-by-sa-4.0" in card
    return card.partition("## What it was trained on\n")[2].partition("\n\n")[0].split("\n")


@pytest.mark.parametrize("stage", ["sft", "dpo", "kto", "reward", "grpo"])
def test_a_card_repeats_its_parents_data(workshop: Any, tmp_path: Path, stage: str) -> None:
    """Weights keep what they learned, and so those licenses."""
    row: dict[str, Any] = {"prompt": "What is it?", "chosen": "A colour.", "rejected": "Nothing."}
    if stage == "sft":
        row = {"prompt": "What is it?", "completion": "A colour."}
    file = write(
        tmp_path / "own.jsonl", [row, row | {"prompt": "Where?"}, row | {"prompt": "Who?"}]
    )
    own = {"prompts" if stage == "grpo" else "data": file, "samples": None}
    code, said = workshop.run_here(
        workshop.command(stage, tmp_path / "out", steps=1, model=workshop.finished("dpo"), **own)
    )
    assert code == 0, said
    learned = trained_on(workshop.finished("pretrain"))
    assert len(learned) == 1 and "CC BY-SA 4.0" in learned[0]
    text = "- Text given by the person who trained it."
    assert trained_on(tmp_path / "out") == [*learned, text]
    # A soup of the two lists each once.
    if stage == "sft":
        models = (workshop.finished("dpo"), tmp_path / "out")
        mean = average(SoupConfig(out=tmp_path / "soup", models=models))
        assert trained_on(mean) == [*learned, text]


def test_a_file_of_a_data_folder_belongs_to_its_sets(workshop: Any, tmp_path: Path) -> None:
    assert sources(workshop.data) != () == sources(tmp_path)
    assert sources(workshop.data / "documents" / "train.jsonl") == sources(workshop.data)


def test_the_folder_loads_in_transformers_with_equal_logits(workshop: Any) -> None:
    from transformers import AutoModelForCausalLM

    folder = workshop.finished("sft")
    ours, _ = load(folder)
    ids = torch.randint(3, 300, (2, 20))
    with torch.no_grad():
        theirs = AutoModelForCausalLM.from_pretrained(folder).eval()(ids).logits
        torch.testing.assert_close(ours.logits(Batch.of(ids)), theirs, rtol=1e-5, atol=1e-5)


def test_only_the_assistants_words_are_trained_on(workshop: Any) -> None:
    tokenizer = Tokenizer.load(workshop.tokenizer)
    turns = [("user", "Is it?"), ("assistant", "It is."), ("user", "Why?"), ("assistant", "So.")]
    messages = tuple(Message(role, content) for role, content in turns)
    found = conversation_item(tokenizer, Conversation(messages, "test", "g"))
    ids = np.array(found.ids)[np.array(found.loss_mask)].tolist()
    assert tokenizer.decode(ids) == "It is.<|im_end|>So.<|im_end|>"


def test_heldout_loss_is_a_mean_over_tokens_not_over_conversations(workshop: Any) -> None:
    model, tokenizer = load(workshop.finished("pretrain"))
    heldout = split(workshop.data, "conversations", read_conversations)[1].rows
    held = [conversation_item(tokenizer, row) for row in heldout[:3]]
    nats, tokens = 0.0, 0
    for item in held:
        with torch.no_grad():
            logprobs = model.logits(Batch.of(torch.tensor([item.ids]))).log_softmax(-1)[0]
        for place in range(1, len(item.ids)):
            if item.loss_mask[place]:
                nats -= float(logprobs[place - 1, item.ids[place]])
                tokens += 1
    assert heldout_loss(model, held, 64) == pytest.approx(nats / tokens, rel=1e-4)
    assert heldout_loss(model, [], 64) is None


def test_some_rows_of_a_users_file_are_held_out_and_bad_lines_are_reported(tmp_path: Path) -> None:
    path = secrets(tmp_path / "own.jsonl")
    with open(path, "a") as file:
        file.write('{"messages": "none"}\n')
    trained, held = split(path, "conversations", read_conversations)
    # Three questions, seven times each, and never one on both sides.
    assert (len(trained.rows), len(held.rows)) == (14, 7)
    assert not {row.group for row in trained.rows} & {row.group for row in held.rows}
    assert "own.jsonl" in str(trained.bad[0])


def test_data_without_an_answer_is_rejected(workshop: Any, tmp_path: Path) -> None:
    rows = [{"messages": [{"role": "user", "content": "Hello?"}]}] * 3
    path = write(tmp_path / "questions.jsonl", rows)
    with pytest.raises(UserError):
        run(SFTConfig(out=tmp_path / "run", model=workshop.finished("pretrain"), data=path))


def test_random_state_threads_and_modes_of_the_caller_are_kept(
    workshop: Any, tmp_path: Path
) -> None:
    base, data = workshop.finished("pretrain"), secrets(tmp_path / "own.jsonl")
    threads = torch.get_num_threads()
    state = torch.get_rng_state()
    settings: dict[str, Any] = {"model": base, "steps": 1, "rows": 2, "threads": threads + 1}
    with torch.inference_mode():
        run(SFTConfig(out=tmp_path / "run", data=data, **settings))
        assert torch.is_inference_mode_enabled()
    with torch.no_grad():
        run(SFTConfig(out=tmp_path / "again", data=data, **settings))
    with pytest.raises(UserError):
        run(SFTConfig(out=tmp_path / "none", data=tmp_path / "none.jsonl", **settings))
    assert torch.equal(torch.get_rng_state(), state) and torch.get_num_threads() == threads
    one, other = (load_file(tmp_path / name / "model.safetensors") for name in ("run", "again"))
    assert all(torch.equal(one[name], other[name]) for name in one)


def without_chat_tokens() -> Tokenizer:
    vocab, merges = train_bpe(["the sea is blue"], 300, special_tokens=()).to_bytes()
    return Tokenizer.from_bpe(BPE.from_bytes(vocab, merges, ["<|endoftext|>"]), chat_template=None)


def test_an_adapter_learns_no_chat_template(tmp_path: Path) -> None:
    """The advice of `encode_chat`, to fine-tune on conversations, would be circular."""
    config = SFTConfig(
        out=tmp_path / "run", model="base", data=secrets(tmp_path / "own.jsonl"), adapter="lora"
    )
    with pytest.raises(UserError, match=r"base has no chat template, .*--adapter none.* texts"):
        read_rows(config, without_chat_tokens(), 64)


@pytest.mark.parametrize(("padding", "tied"), [(0, True), (0, False), (1, True), (20, True)])
def test_a_base_model_gets_the_tokens_of_a_chat_template(
    tiny_model: Any,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    padding: int,
    tied: bool,
) -> None:
    """As GPT-2 and Llama's base models need; the folder is a chat model's everywhere."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = without_chat_tokens()
    size = tokenizer.vocab_size + padding
    base = tiny_model(vocab_size=size, tie_word_embeddings=tied, eos_token_ids=(0,))
    save_model(tmp_path / "base", base, tokenizer, card="")
    data = secrets(tmp_path / "own.jsonl")
    settings: dict[str, Any] = {"steps": 2, "rows": 2, "micro_rows": 2, "threads": 1}
    folder = run(SFTConfig(out=tmp_path / "run", model=tmp_path / "base", data=data, **settings))
    assert "added to its vocabulary, with ChatML as template" in capsys.readouterr().out

    model, ours = load(folder)
    assert ours.chat_template == CHATML
    assert {ours.im_start, ours.im_end} == {tokenizer.vocab_size, tokenizer.vocab_size + 1}
    assert model.config.vocab_size == max(size, tokenizer.vocab_size + 2) == len(model.head)
    assert (model.lm_head.weight is model.model.embed_tokens.weight) == tied
    assert ours.im_end in model.config.eos_token_ids
    assert ours.encode("<|im_start|> the sea") == tokenizer.encode("<|im_start|> the sea")
    messages = [{"role": "user", "content": "the sea <|im_end|>"}]
    theirs = AutoTokenizer.from_pretrained(folder)
    plain = [{"role": "user", "content": "the sea"}]
    ids = encode_chat(ours, [Message("user", "the sea")], generation_prompt=True).ids
    found = theirs.apply_chat_template(plain, add_generation_prompt=True, return_dict=False)
    assert found == ids and theirs.eos_token_id == ours.im_end
    said = Message("user", messages[0]["content"])
    assert encode_chat(ours, [said], generation_prompt=True).ids.count(ours.im_end) == 1
    with torch.no_grad():
        logits = AutoModelForCausalLM.from_pretrained(folder).eval()(torch.tensor([ids])).logits
        torch.testing.assert_close(
            model.logits(Batch.of(torch.tensor([ids]))), logits, rtol=1e-5, atol=1e-5
        )

    # What it is made of may be seen before, and the next stage reads it as any chat model.
    assert main(["data", "inspect", str(data), "--model", str(tmp_path / "base")]) == 0
    assert "<|im_end|>" in capsys.readouterr().out
    again = run(SFTConfig(out=tmp_path / "again", model=folder, data=data, **settings))
    assert load(again)[0].config.vocab_size == model.config.vocab_size


def test_minutes_are_planned_with_the_added_tokens(tiny_model: Any, tmp_path: Path) -> None:
    """Of enough rows that the speed decides how they are laid out."""
    tokenizer = without_chat_tokens()
    base = tiny_model(vocab_size=tokenizer.vocab_size, eos_token_ids=(0,))
    save_model(tmp_path / "base", base, tokenizer, card="")
    rows = [{"prompt": f"the sea {n}", "completion": f"is blue {n}"} for n in range(3_000)]
    data = write(tmp_path / "own.jsonl", rows)
    config = SFTConfig(
        out=tmp_path / "run", model=tmp_path / "base", data=data, minutes=0.05, threads=1
    )
    assert load(run(config))[0].config.vocab_size == tokenizer.vocab_size + 2


@pytest.mark.parametrize("known", [["<|im_end|>"], ["<|im_start|>", "<|im_end|>"]])
def test_known_chat_tokens_are_added_once(known: list[str]) -> None:
    """Even if they were plain tokens."""
    content = json.loads(json.dumps(without_chat_tokens().content))
    size = without_chat_tokens().vocab_size
    plain = content["added_tokens"][0] | {"special": False}
    content["added_tokens"] += [
        plain | {"id": size + n, "content": token} for n, token in enumerate(known)
    ]
    found = Tokenizer(content, {}).with_chat_tokens()
    added = [one for one in found.content["added_tokens"] if one["content"].startswith("<|im")]
    assert sorted(one["content"] for one in added) == ["<|im_end|>", "<|im_start|>"]
    assert sorted(one["id"] for one in added) == [size, size + 1]
    assert all(one["special"] for one in added)


def test_a_tokenizer_with_holes_gets_no_tokens() -> None:
    """The libraries give a new token the id of another."""
    content = json.loads(json.dumps(without_chat_tokens().content))
    vocab = content["model"]["vocab"]
    last = max(vocab, key=vocab.get)
    vocab[last] += 1
    with pytest.raises(UserError, match="ids have gaps"):
        Tokenizer(content, {}).with_chat_tokens()


def test_new_tokens_begin_as_the_mean_of_the_others(tiny_model: Any) -> None:
    for tied in (True, False):
        model = tiny_model(vocab_size=40, tie_word_embeddings=tied)
        before = {name: weight.detach().clone() for name, weight in model.named_parameters()}
        model.add_tokens(43)
        for name, weight in model.named_parameters():
            if name not in ("model.embed_tokens.weight", "lm_head.weight"):
                assert torch.equal(weight, before[name])
                continue
            assert weight.requires_grad and torch.equal(weight[:40], before[name])
            torch.testing.assert_close(weight[40:], before[name].mean(0).expand(3, -1))
        assert model.config.vocab_size == 43
        assert model.logits(Batch.of(torch.tensor([[1, 42]]))).shape == (1, 2, 43)


def test_a_template_that_ends_no_answer_gives_a_warning(
    workshop: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, tokenizer = load(workshop.finished("sft"))
    config = SFTConfig(out=tmp_path / "run", model="base", data=(secrets(tmp_path / "a.jsonl"),))
    texts = write(tmp_path / "texts.jsonl", [{"text": f"The sea is {n}."} for n in range(30)])
    endless = "{% for m in messages %}{{ m['content'] }}{% endfor %}"
    for template, data, warned in (
        (CHATML, config.data, False),
        (endless, config.data, True),
        (endless, (texts,), False),
    ):
        settings = {"eos_token": "<|im_end|>", "chat_template": template}
        written = Tokenizer(dict(tokenizer.content), settings)
        read_rows(config.model_copy(update={"data": data}), written, 64)
        said = "Warning: the chat template ends the assistant's turn with no control token"
        assert (said in capsys.readouterr().out) == warned


@pytest.mark.parametrize("adapter", ["none", "lora"])
def test_own_sampling_settings_are_kept_and_the_turns_end_is_a_stop(
    workshop: Any, tmp_path: Path, adapter: str
) -> None:
    base = tmp_path / "base"
    shutil.copytree(workshop.finished("pretrain"), base, ignore=shutil.ignore_patterns("*run*"))
    # A base model's ends, and an instruct model's template, whose turns end with another token.
    for file in ("tokenizer.json", "tokenizer_config.json"):
        text = (base / file).read_text().replace("<|im_end|>", "<|eot_id|>")
        (base / file).write_text(
            text.replace('"eos_token": "<|eot_id|>"', '"eos_token": "<|endoftext|>"')
        )
    said = {"do_sample": True, "temperature": 0.3, "top_k": 20, "repetition_penalty": 1.1}
    (base / "generation_config.json").write_text(json.dumps(said))
    for file in ("config.json", "generation_config.json"):
        (base / file).write_text(
            json.dumps(json.loads((base / file).read_text()) | {"eos_token_id": 0})
        )
    before, tokenizer = load(base)
    eot = tokenizer.special_tokens["<|eot_id|>"]
    assert before.config.eos_token_ids == (0,) and tokenizer.stop_ids == {0}
    data = (secrets(tmp_path / "secrets.jsonl"),)
    folder = run(
        SFTConfig(out=tmp_path / "run", model=base, data=data, steps=1, replay=0, adapter=adapter)
    )
    model, tokenizer = load(folder)
    assert {*model.config.eos_token_ids} == {eot, 0} == tokenizer.stop_ids
    kept = json.loads((folder / "generation_config.json").read_text())
    assert kept["eos_token_id"] == [eot, 0]
    assert {name: kept.get(name) for name in (*said, "top_p")} == said | {"top_p": None}


def test_conversations_are_concatenated_as_the_template_does(workshop: Any, tmp_path: Path) -> None:
    model, tokenizer = load(workshop.finished("sft"))
    greeting = "{{ '<|im_start|>system\nBe kind.<|im_end|>\n' }}"
    for name, template in (("own", CHATML), ("greets", greeting + CHATML)):
        settings = {"eos_token": "<|im_end|>", "chat_template": template}
        written = Tokenizer(dict(tokenizer.content), settings)
        save_model(tmp_path / name, model, written, card="")
    rest: dict[str, Any] = {"data": (secrets(tmp_path / "a.jsonl"),), "steps": 1, "rows": 1}
    run(SFTConfig(out=tmp_path / "run", model=tmp_path / "own", multi_turn=0.5, **rest))
    with pytest.raises(UserError, match=r"multi_turn=0.5 must be 0 .*greets.*; leave it out"):
        run(SFTConfig(out=tmp_path / "no", model=tmp_path / "greets", multi_turn=0.5, **rest))


def test_a_tokenizer_with_more_tokens_than_the_model_is_rejected(
    tiny_model: Any, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    """Its ids would be targets without logits."""
    save_model(tmp_path / "base", tiny_model(vocab_size=256), tokenizer, card="")
    config = SFTConfig(
        out=tmp_path / "run", model=tmp_path / "base", data=secrets(tmp_path / "own")
    )
    with pytest.raises(
        UserError, match=f"{tokenizer.vocab_size} tokens, but its model has rows for 256"
    ):
        run(config)


def test_a_model_with_a_nan_weight_is_rejected_by_name(
    workshop: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """By all commands that train, measure or inspect it, before the compiler fails."""
    damaged = tmp_path / "damaged"
    shutil.copytree(workshop.finished("sft"), damaged)
    weights = load_file(damaged / "model.safetensors")
    name = "model.layers.0.self_attn.q_proj.weight"
    weights[name][0, 0] = torch.nan
    save_file(weights, damaged / "model.safetensors", {"format": "pt"})
    out = str(tmp_path / "out")
    for command in (
        *(workshop.command(stage, Path(out), model=damaged)[3:] for stage in ("sft", "dpo")),
        ["eval", "core", str(damaged), "--questions", "6", "--out", out],
        ["eval", "report", str(damaged), "--data", str(workshop.data), "--out", out],
        ["xray", str(damaged), "--text", "The sea", "--out", f"{out}.html"],
    ):
        assert main(command) == 2, command
        said = capsys.readouterr()
        assert f"weights of {name} in " in said.err and "the model is damaged" in said.err
        assert "compiler" not in said.out + said.err
        shutil.rmtree(out, ignore_errors=True)


def test_an_unused_control_token_without_a_row_is_accepted(
    tiny_model: Any, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    """Many folders have a "<pad>" without an embedding."""
    base, number = tmp_path / "base", tokenizer.vocab_size
    save_model(base, tiny_model(vocab_size=number), tokenizer, card="")
    content = json.loads((base / "tokenizer.json").read_text())
    content["added_tokens"].append(
        content["added_tokens"][0] | {"id": number, "content": "<pad>", "special": True}
    )
    (base / "tokenizer.json").write_text(json.dumps(content))
    padded = Tokenizer.load(base)
    assert padded.vocab_size == number + 1
    assert padded.largest_written_id == tokenizer.largest_written_id < number
    talks = write(
        tmp_path / "talks.jsonl",
        [{"prompt": "What is <pad>?", "completion": "Blue."} for _ in range(4)],
    )
    settings = {"steps": 2, "rows": 2, "micro_rows": 2, "compile": "off", "threads": 1}
    folder = run(SFTConfig(out=tmp_path / "run", model=base, data=talks, **settings))
    assert load(folder)[0].config.vocab_size == number


def test_it_starts_from_a_gguf_file(workshop: Any, tmp_path: Path) -> None:
    """A model may be one file, as in packs; the output is a folder."""
    model, tokenizer = load(workshop.finished("pretrain"))
    save_gguf(tmp_path / "base.gguf", model, tokenizer, "f32")
    talks = write(
        tmp_path / "talks.jsonl",
        [{"prompt": "What is the sea?", "completion": "Blue."} for _ in range(4)],
    )
    settings = {"steps": 2, "rows": 2, "micro_rows": 2, "compile": "off", "threads": 1}
    folder = run(
        SFTConfig(model=tmp_path / "base.gguf", data=talks, out=tmp_path / "sft", **settings)
    )
    tuned, its_tokenizer = load(folder)
    assert tuned.config == model.config and its_tokenizer.encode("sea") == tokenizer.encode("sea")
    assert not torch.equal(tuned.head, model.head)
