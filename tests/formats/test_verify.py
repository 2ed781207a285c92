from __future__ import annotations

import json
import re
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tokenizers
import torch
from tokenizers import decoders, models, pre_tokenizers, trainers

from gguf_files import U32, Value, header_of
from groundup.adapters.attach import add_lora
from groundup.adapters.quantization import quantize
from groundup.app.cli import main
from groundup.errors import UserError
from groundup.formats.adapter import save_adapted
from groundup.formats.checks import HARD_TEXTS, Check, same_ids
from groundup.formats.export import export
from groundup.formats.folder import save_model
from groundup.formats.gguf.header import read_gguf_header
from groundup.formats.gguf.write import save_gguf
from groundup.formats.load import load
from groundup.formats.verify import compared_with_itself, verify
from groundup.lm.config import ModelConfig, Rope
from groundup.lm.model import CausalLM
from groundup.text.bpe import train_bpe
from groundup.text.template import CHATML
from groundup.text.tokenizer import Tokenizer
from preloaded import Process

FAMILIES: dict[str, dict[str, Any]] = {
    "qwen3": {},
    "qwen2": {"attention_bias": True, "tie_word_embeddings": False},
    "llama": {"rope": Rope(theta=5e5, type="llama3", factor=8.0)},
    "mistral": {"sliding_window": 24},
    "gpt2": {
        "attention_bias": True, "mlp_bias": True, "hidden_act": "gelu_new",
        "num_key_value_heads": 4, "rms_norm_eps": 1e-5,
    },
}  # fmt: skip


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.from_bpe(train_bpe(["The sea is wide and the ship sails over the sea."], 300))


def make(seed: int = 0, **changes: Any) -> CausalLM:
    """A model with random weights; two layers and grouped queries."""
    config = ModelConfig.of(width=64, depth=2, vocab_size=320, context=128, heads=4, kv_heads=2)
    model = CausalLM(replace(config, **changes))
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.normal_(1.0 if "norm" in name else 0.0, 0.2, generator=generator)
    return model


@pytest.fixture
def folder(tmp_path: Path, tokenizer: Tokenizer) -> Path:
    save_model(tmp_path / "model", make(), tokenizer, card="# x\n")
    return tmp_path / "model"


def differing(checks: list[Check]) -> list[str]:
    return [check.name for check in checks if check.status == "differs"]


@pytest.mark.parametrize("family", FAMILIES)
def test_a_valid_folder_passes_all_checks(
    family: str, tmp_path: Path, tokenizer: Tokenizer
) -> None:
    model = make(model_type=family, **FAMILIES[family])
    if family == "qwen2":
        # Whatever a Qwen2 folder's tokenizer says, transformers normalizes as Qwen's own does.
        normalized = {**tokenizer.content, "normalizer": {"type": "NFC"}}
        tokenizer = Tokenizer(normalized, {"eos_token": "<|im_end|>", "chat_template": CHATML})
    save_model(tmp_path, model, tokenizer, card="# x\n")
    checks = verify(tmp_path)
    assert differing(checks) == [], checks
    compared = {check.name for check in checks if check.status == "same"}
    assert {
        "logits through the KV cache",
        "logits in a batch",
        "greedy tokens in a batch",
        "logits as transformers computes them",
        "added tokens as transformers knows them",
        "where an answer ends in transformers",
        "ids as transformers makes them",
        "chat as transformers renders it",
        "chat ids as transformers makes them",
        "GGUF F32: how a text begins",
        "GGUF F32: where an answer ends",
        "GGUF F32: context",
        "GGUF F32: tensors",
        "GGUF F32: logits",
        "GGUF Q8_0: logits",
        "GGUF Q8_0: chat template",
    } <= compared


def test_an_export_is_compared_with_its_folder(
    folder: Path, tmp_path: Path, tokenizer: Tokenizer
) -> None:
    model, _ = load(folder)
    file = tmp_path / "model.gguf"
    for kind in ("f16", "q4_0"):
        save_gguf(file, model, tokenizer, kind)
        checks = verify(file, folder)
        assert differing(checks) == []
        assert f"GGUF {kind.upper()}: tensors" in {check.name for check in checks}


@pytest.mark.parametrize(
    ("name", "to"),
    [
        *(("adapter", "gguf"), ("four bits", "hf"), ("adapter", "itself")),
        *(
            pytest.param(name, to, marks=pytest.mark.long)
            for name, to in (("adapter", "hf"), ("four bits", "gguf"), ("four bits", "itself"))
        ),
    ],
)
def test_an_export_is_compared_with_an_adapter_or_4_bits(
    folder: Path, tmp_path: Path, tokenizer: Tokenizer, name: str, to: str
) -> None:
    model, source = quantize(load(folder)[0]), tmp_path / name
    if name == "adapter":
        add_lora(model, rank=2, targets=["q_proj"])
        save_adapted(source, model, tokenizer, card="# x\n", base=folder)
    else:
        save_model(source, model, tokenizer, card="# x\n", dtype=torch.bfloat16)
    copy = source
    if to == "gguf":
        copy = export(source, type="f16") / f"{name}.f16.gguf"
    elif to == "hf":
        copy = export(source, to="hf")
    assert differing(verify(copy, source)) == [], copy


def assert_a_table_alone(said: str) -> None:
    assert not [line for line in said.splitlines() if not re.match(r"\S.*  (same|-)  +\S", line)]


@pytest.mark.long
def test_for_an_adapter_only_the_table_is_printed(
    folder: Path, tmp_path: Path, tokenizer: Tokenizer
) -> None:
    """PEFT and its dependencies warn when they are imported, hence a separate process."""
    model = add_lora(load(folder)[0], rank=2, targets=["q_proj"])
    save_adapted(tmp_path / "adapter", model, tokenizer, card="# x\n", base=folder)
    command = [sys.executable, "-m", "groundup", "verify", str(tmp_path / "adapter")]
    code, said = Process(command).communicate()
    assert code == 0 and "logits as transformers computes them" in said
    assert_a_table_alone(said)


def test_a_library_that_cannot_be_imported_is_reported_and_other_checks_run(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Like one with an incompatible dependency, in a separate process."""
    (tmp_path / "transformers.py").write_text("from json import nothing\n")
    monkeypatch.chdir(tmp_path)  # from where `python -m` imports first
    command = [sys.executable, "-m", "groundup", "verify", str(folder)]
    code, said = Process(command, COLUMNS="300").communicate()
    assert code == 0 and "GGUF Q8_0" in said
    assert "transformers cannot be imported: ImportError: cannot import name 'nothing'" in (
        " ".join(said.split())
    )
    assert_a_table_alone(said)


def test_a_changed_weight_is_found(folder: Path, tmp_path: Path, tokenizer: Tokenizer) -> None:
    model, _ = load(folder)
    with torch.no_grad():
        model.model.layers[1].mlp.up_proj.weight[3, 5] += 0.5  # type: ignore[union-attr, operator, index]
    save_gguf(tmp_path / "model.gguf", model, tokenizer, "f32")
    checks = verify(tmp_path / "model.gguf", folder)
    assert differing(checks) == ["GGUF F32: tensors"]
    [tensors] = [check for check in checks if check.name == "GGUF F32: tensors"]
    assert tensors.about == "1 of 24 tensors, the first of them model.layers.1.mlp.up_proj.weight"


def test_a_changed_setting_is_found_with_equal_weights(
    folder: Path, tmp_path: Path, tokenizer: Tokenizer
) -> None:
    model, _ = load(folder)
    turned = CausalLM(replace(model.config, rope=Rope(theta=500.0)))
    turned.load_state_dict(model.state_dict())
    save_gguf(tmp_path / "model.gguf", turned, tokenizer, "q8_0")
    assert differing(verify(tmp_path / "model.gguf", folder)) == ["GGUF Q8_0: logits"]


def with_control_tokens(tokenizer: Tokenizer, *names: str) -> Tokenizer:
    plain = tokenizer.content["added_tokens"]
    own = [plain[0] | {"id": id, "content": name}
           for id, name in enumerate(names, tokenizer.vocab_size)]  # fmt: skip
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|im_end|>"}
    return Tokenizer(dict(tokenizer.content) | {"added_tokens": [*plain, *own]}, settings)


START = "2 tokens; also at '<|im_start|>'"


@pytest.mark.parametrize(
    ("entry", "value", "name", "told"),
    [
        ("tokenizer.ggml.eos_token_id", 1, "where an answer ends", START),
        ("llama.context_length", 64, "context", "64 tokens, not 128"),
    ],
)
def test_a_changed_entry_is_found(
    tmp_path: Path, tokenizer: Tokenizer, entry: str, value: int, name: str, told: str
) -> None:
    model = make(model_type="llama")
    save_model(tmp_path / "model", model, tokenizer, card="# x\n")
    save_gguf(tmp_path / "a.gguf", model, tokenizer, "f32")
    header = header_of(read_gguf_header(tmp_path / "a.gguf")).changed(entry, Value(U32, value))
    (tmp_path / "b.gguf").write_bytes(header.to_bytes())
    [differs] = [c for c in verify(tmp_path / "b.gguf", tmp_path / "model") if c.status != "same"]
    assert (differs.name, differs.status) == (f"GGUF F32: {name}", "differs")
    assert differs.about == told


def test_a_lost_stop_token_is_found(tmp_path: Path, tokenizer: Tokenizer) -> None:
    """As by a converter that takes the first of several ends."""
    folder, model = tmp_path / "model", make()
    tokenizer = with_control_tokens(tokenizer, "<a>", "<b>")
    save_model(folder, model, tokenizer, card="# x\n")
    ends = [2, tokenizer.vocab_size - 2, tokenizer.vocab_size - 1]
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": ends}))
    save_gguf(tmp_path / "model.gguf", model, tokenizer, "f32")
    lost = "4 tokens; not at '<a>', '<b>'"
    checks = {check.name: check for check in verify(tmp_path / "model.gguf", folder)}
    assert differing([*checks.values()]) == ["GGUF F32: where an answer ends"]
    assert checks["GGUF F32: where an answer ends"].about == lost
    save_model(tmp_path / "copy", model, tokenizer, card="# x\n")
    checks = {check.name: check for check in verify(tmp_path / "copy", folder)}
    assert differing([*checks.values()]) == ["folder: where an answer ends"]
    assert checks["folder: where an answer ends"].about == lost


def test_a_lost_context_is_found_but_a_window_is_accepted(
    folder: Path, tmp_path: Path, tokenizer: Tokenizer
) -> None:
    model = make(max_position_embeddings=64)
    save_model(tmp_path / "copy", model, tokenizer, card="# x\n")
    assert differing(verify(tmp_path / "copy", folder)) == ["folder: context"]
    windowed = make(model_type="mistral", sliding_window=24)
    save_model(tmp_path / "window", windowed, tokenizer, card="# x\n")
    save_gguf(tmp_path / "a.gguf", windowed, tokenizer, "f32")
    header = header_of(read_gguf_header(tmp_path / "a.gguf"))
    # As llama.cpp's own converter writes it.
    whole = header.changed("llama.context_length", Value(U32, 128))
    (tmp_path / "b.gguf").write_bytes(whole.to_bytes())
    for file, tokens in (("a.gguf", 24), ("b.gguf", 128)):
        checks = {check.name: check for check in verify(tmp_path / file, tmp_path / "window")}
        assert differing([*checks.values()]) == []
        assert checks["GGUF F32: context"].about == f"{tokens} tokens"


def test_stops_that_a_copy_or_transformers_does_not_share_are_reported(
    tmp_path: Path, tokenizer: Tokenizer
) -> None:
    words = with_control_tokens(tokenizer, "<|end|>")
    save_model(tmp_path, make(eos_token_ids=(2,)), words, card="# x\n")
    checks = {check.name: check for check in verify(tmp_path)}
    assert differing([*checks.values()]) == []
    theirs = checks["where an answer ends in transformers"].about
    assert theirs == "1 token; also at '<|endoftext|>', where transformers goes on"
    copy = checks["GGUF F32: where an answer ends"].about
    assert copy == "2 tokens; also at '<|end|>', which llama.cpp stops at by name"


def test_another_tokenizer_is_found(folder: Path, tmp_path: Path) -> None:
    model, _ = load(folder)
    other = Tokenizer.from_bpe(train_bpe(["A wholly different text about owls and lamps."], 300))
    save_gguf(tmp_path / "model.gguf", model, other, "f32")
    assert differing(verify(tmp_path / "model.gguf", folder)) == [
        "GGUF F32: ids",
        "GGUF F32: chat template",
    ]


def test_a_vocabulary_larger_than_the_model_is_found(tokenizer: Tokenizer) -> None:
    checks = compared_with_itself(make(vocab_size=256), tokenizer)
    assert differing(checks) == ["every token has its row"]


def test_a_template_that_users_can_manipulate_is_found(tokenizer: Tokenizer) -> None:
    """One that depends on the user's text: marks inside it change the output."""
    curious = CHATML + "{{ messages[2]['content'] | length }}"
    content = Tokenizer(
        dict(tokenizer.content), {"eos_token": "<|im_end|>"} | {"chat_template": curious}
    )
    assert differing(compared_with_itself(make(), content)) == [
        "chat template as its Jinja renders it"
    ]


def test_different_reading_by_transformers_is_found(tmp_path: Path, tokenizer: Tokenizer) -> None:
    """In a folder that calls itself Qwen2 it normalizes texts, though tokenizer.json does not."""
    model = make(model_type="qwen2", attention_bias=True)
    save_model(tmp_path, model, tokenizer, card="# x\n")
    [differs] = [check for check in verify(tmp_path) if check.status == "differs"]
    assert differs.name == "ids as transformers makes them"
    # NFC makes one letter of the e and its accent, far behind the text's beginning.
    assert "the first of them '🙂🙃" in differs.about
    ours, theirs = differs.about.split(": ")[-1].split(", not ")
    assert ours.startswith("'…[") and ours != theirs


def test_an_added_token_that_the_template_writes_is_text_in_transformers_too(
    tmp_path: Path, tokenizer: Tokenizer
) -> None:
    """As Qwen3's <think>, which its files call ordinary; one that no template writes is one id."""
    own = [
        {"id": id, "content": token, "special": False}
        | dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
        for id, token in enumerate(("<think>", "[INST]"), tokenizer.vocab_size)
    ]
    content = tokenizer.content | {"added_tokens": [*tokenizer.content["added_tokens"], *own]}
    template = CHATML + "{% if enable_thinking %}<think>{% endif %}"
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|im_end|>"}
    added = Tokenizer(content, settings | {"chat_template": template})
    assert len(added.encode("<think>")) > 1 and len(added.encode("[INST]")) == 1
    save_model(tmp_path, make(), added, card="# x\n")
    checks = {check.name: check for check in verify(tmp_path)}
    assert checks["ids as transformers makes them"].status == "same", checks
    assert differing(list(checks.values())) == []


def test_a_failing_template_gives_no_traceback(tmp_path: Path, tokenizer: Tokenizer) -> None:
    for template in ("{% if %}", "{{ raise_exception('no') }}"):
        settings = {"tokenizer_class": "PreTrainedTokenizerFast", "chat_template": template}
        broken = Tokenizer(dict(tokenizer.content), settings)
        save_model(tmp_path, make(), broken, card="# x\n")
        checks = {check.name: check for check in verify(tmp_path)}
        assert checks["chat template as its Jinja renders it"].status == "not checked"
        assert differing(list(checks.values())) == []


def test_non_finite_weights_are_found(tokenizer: Tokenizer) -> None:
    model = make()
    with torch.no_grad():
        model.model.norm.weight.fill_(torch.nan)  # type: ignore[union-attr, operator]
    assert "greedy tokens in a batch" in differing(compared_with_itself(model, tokenizer))


def test_read_only_types_are_not_verified(tmp_path: Path, tokenizer: Tokenizer) -> None:
    model = make(hidden_size=256, intermediate_size=256, head_dim=64)
    save_model(tmp_path / "model", model, tokenizer, card="# x\n")
    write_k_quants(model, tokenizer, tmp_path / "k.gguf")
    checks = {check.name: check.status for check in verify(tmp_path / "k.gguf", tmp_path / "model")}
    assert checks["GGUF Q4_K: tensors"] == "not checked"
    assert checks["GGUF Q4_K: logits"] == "same"


def write_k_quants(model: CausalLM, tokenizer: Tokenizer, file: Path) -> None:
    """A GGUF file with zeros of a type that the `gguf` package can only read."""
    import gguf
    import numpy as np

    save_gguf(file, model, tokenizer, "f32")
    reader = gguf.GGUFReader(file)
    writer = gguf.GGUFWriter(file.with_suffix(".new"), "qwen3")
    for field in reader.fields.values():
        if not field.name.startswith("GGUF.") and field.name != "general.architecture":
            kind = field.types[0]
            inner = field.types[-1] if kind == gguf.GGUFValueType.ARRAY else None
            writer.add_key_value(field.name, field.contents(), kind, sub_type=inner)
    for tensor in reader.tensors:
        shape = [int(n) for n in reversed(tensor.shape)]
        if len(shape) > 1:
            block = np.zeros((shape[0], shape[1] // 256 * 144), np.uint8)
            writer.add_tensor(tensor.name, block, raw_dtype=gguf.GGMLQuantizationType.Q4_K)
        else:
            writer.add_tensor(tensor.name, tensor.data.copy().reshape(shape))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    file.with_suffix(".new").replace(file)


def test_another_size_is_found(tmp_path: Path, folder: Path, tokenizer: Tokenizer) -> None:
    save_gguf(tmp_path / "model.gguf", make(num_hidden_layers=1), tokenizer, "f32")
    [differs] = [c for c in verify(tmp_path / "model.gguf", folder) if c.status == "differs"]
    assert differs.name == "GGUF F32: sizes" and "layers.1" in differs.about


def test_a_folder_is_compared_with_a_folder(tmp_path: Path, folder: Path) -> None:
    model, tokenizer = load(folder)
    save_model(tmp_path / "half", model, tokenizer, card="# x\n", dtype=torch.bfloat16)
    checks = verify(tmp_path / "half", folder)
    assert differing(checks) == []
    assert "folder in bfloat16: logits" in {check.name for check in checks}


def test_a_tokenizer_that_loses_text_is_found(tokenizer: Tokenizer) -> None:
    lossy = Tokenizer({**tokenizer.content, "normalizer": {"type": "Lowercase"}}, {})
    assert "text to ids and back" in differing(compared_with_itself(make(), lossy))


@pytest.fixture(scope="module")
def spelling() -> Tokenizer:
    """A Unigram tokenizer trained the ordinary way, whose vocabulary contains its control token."""
    fast = tokenizers.Tokenizer(models.Unigram())
    fast.pre_tokenizer, fast.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=300, special_tokens=["<unk>", "</s>"], unk_token="<unk>", show_progress=False
    )
    fast.train_from_iterator(HARD_TEXTS, trainer)
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "</s>"}
    return Tokenizer(json.loads(fast.to_str()), settings)


def test_a_vocabulary_with_a_control_token_gets_a_whole_table(
    tmp_path: Path, spelling: Tokenizer, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(UserError, match="turns the plain text into a control token"):
        spelling.encode("A line </s> and another.")
    save_model(tmp_path, make(eos_token_ids=(1,)), spelling, card="# x\n")
    checks = {check.name: check for check in verify(tmp_path)}
    assert differing([*checks.values()]) == ["no text becomes a control token"], checks
    assert {
        name
        for name, check in checks.items()
        if check.status == "same" and check.about == f"{len(HARD_TEXTS) - 1} hard texts"
    } == {"text to ids and back", "ids as transformers makes them"}
    assert checks["logits as transformers computes them"].status == "same"
    assert main(["verify", str(tmp_path)]) == 1
    heard = capsys.readouterr()
    [row] = [line for line in heard.out.splitlines() if "DIFFERS" in line]
    assert row.startswith("no text becomes a control token ")
    assert heard.err.startswith("error: 1 of ")


def test_a_copy_that_rejects_a_text_of_the_model_is_found(
    tokenizer: Tokenizer, spelling: Tokenizer
) -> None:
    texts = ["A line </s> and another."]
    assert same_ids("ids", spelling, spelling, texts).status == "same"
    for found, expected in ((spelling, tokenizer), (tokenizer, spelling)):
        check = same_ids("ids", found, expected, texts)
        assert check.status == "differs" and "into a control token" in check.about


def test_the_command_prints_a_table_and_exits_with_one_for_differences(
    folder: Path, tmp_path: Path, tokenizer: Tokenizer, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["verify", str(folder)]) == 0
    said = capsys.readouterr().out
    assert "logits through the KV cache" in said and "DIFFERS" not in said
    save_gguf(tmp_path / "other.gguf", make(seed=1), tokenizer, "f32")
    assert main(["verify", str(tmp_path / "other.gguf"), "--against", str(folder)]) == 1
    heard = capsys.readouterr()
    assert "DIFFERS" in heard.out
    assert heard.err.startswith("error: 1 of ") and len(heard.err.splitlines()) == 1


@pytest.mark.parametrize(
    ("file", "broken"),
    [
        # Each is no fault to the model here, and one to transformers.
        ("tokenizer_config.json", {"eos_token": {"content": "<|im_end|>"}}),
        ("config.json", {"attention_dropout": "none"}),
    ],
)
def test_a_folder_that_transformers_cannot_load_differs(
    folder: Path, capsys: pytest.CaptureFixture[str], file: str, broken: dict[str, Any]
) -> None:
    path = folder / file
    path.write_text(json.dumps(json.loads(path.read_text()) | broken))
    assert main(["verify", str(folder)]) == 1
    heard = capsys.readouterr()
    [row] = [line for line in heard.out.splitlines() if "DIFFERS" in line]
    assert row.startswith("loaded by transformers") and "transformers cannot load it: " in row
    assert heard.err.startswith("error: 1 of ") and len(heard.err.splitlines()) == 1
