from __future__ import annotations

import json
import logging
import random
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
import transformers
from safetensors.torch import load_file, save_file
from torch.testing import assert_close

from groundup.errors import UserError
from groundup.formats.folder import save_model
from groundup.formats.hf_config import rope_to_hf
from groundup.formats.load import load, load_config, load_model
from groundup.generation.generate import generate
from groundup.generation.request import Request
from groundup.generation.sampling import Sampling
from groundup.lm.config import Rope
from groundup.lm.model import CausalLM
from groundup.text.tokenizer import Tokenizer
from groundup.train.batch import Batch
from preloaded import Process

CARD = "---\nlicense: cc-by-sa-4.0\n---\n# A tiny model\n"
IDS = torch.arange(2, 42).reshape(2, 20) * 7


@pytest.fixture
def folder(tmp_path: Path, tiny_model, tokenizer: Tokenizer) -> Path:  # type: ignore[no-untyped-def]
    save_model(tmp_path / "model", tiny_model(), tokenizer, card=CARD)
    return tmp_path / "model"


@contextmanager
def nothing_said(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Fails when transformers warns, by either of Python's two ways."""
    transformers.utils.logging.enable_propagation()
    with warnings.catch_warnings(), caplog.at_level(logging.WARNING):
        warnings.simplefilter("error")
        yield
    transformers.utils.logging.disable_propagation()
    assert [record.getMessage() for record in caplog.records] == []


def edit(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


# Ours, read by transformers.


LLAMA3 = Rope(type="llama3", factor=8.0, original_max_position_embeddings=16)
YARN = Rope(
    type="yarn", factor=4.0, original_max_position_embeddings=16, attention_factor=1.1386294
)
GPT2 = {
    "attention_bias": True, "mlp_bias": True, "hidden_act": "gelu_new", "num_key_value_heads": 4,
    "head_dim": 16, "rms_norm_eps": 1e-5, "eos_token_ids": (2, 0),
}  # fmt: skip


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"tie_word_embeddings": False, "attention_bias": True},
        {"model_type": "llama", "rope": LLAMA3, "mlp_bias": True, "head_dim": 24},
        {"model_type": "llama", "rope": Rope(type="linear", factor=4.0), "eos_token_ids": ()},
        {"rope": YARN, "sliding_window": 6, "windowed_layers": (1,)},
        {"model_type": "qwen2", "attention_bias": True, "head_dim": 16},
        {"model_type": "mistral", "sliding_window": 5, "head_dim": 24},
        {"model_type": "mistral", "sliding_window": None},
        {"model_type": "gpt2", **GPT2},
    ],
    ids=[
        *("own", "untied", "llama3", "linear", "yarn and windows", "qwen2", "mistral"),
        *("mistral without windows", "gpt2"),
    ],
)
def test_transformers_reads_our_folder_without_warnings(
    changes: dict[str, Any],
    tmp_path: Path,
    tiny_model,
    tokenizer: Tokenizer,
    caplog: pytest.LogCaptureFixture,
) -> None:  # type: ignore[no-untyped-def]
    ours = tiny_model(**changes)
    save_model(tmp_path, ours, tokenizer, card=CARD)
    with nothing_said(caplog):
        theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path)
        their_tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path)
        generated = theirs.generate(IDS[:1], max_new_tokens=3)
    assert theirs.dtype == torch.float32
    with torch.no_grad():
        assert_close(ours.logits(Batch.of(IDS)), theirs(IDS).logits, rtol=1e-5, atol=1e-5)
    assert generated.shape[1] > IDS.shape[1]
    assert their_tokenizer("the sea").input_ids == tokenizer.encode("the sea")
    if ours.config.eos_token_ids:
        assert theirs.generation_config.eos_token_id == list(ours.config.eos_token_ids)


# Theirs, read by us.


def llama(**changes: Any) -> Any:
    settings = {
        "vocab_size": 320, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 64,
        "bos_token_id": 1, "eos_token_id": 2,
    }  # fmt: skip
    return transformers.LlamaConfig(**(settings | changes))


def qwen3(**changes: Any) -> Any:
    settings = llama().to_dict() | {"head_dim": 32} | changes
    settings = {k: v for k, v in settings.items() if k not in ("model_type", "mlp_bias")}
    return transformers.Qwen3Config(**settings)


def qwen2(**changes: Any) -> Any:
    settings = llama().to_dict() | {"max_window_layers": 1, "sliding_window": 6} | changes
    for name in ("model_type", "mlp_bias", "attention_bias", "head_dim"):
        del settings[name]
    return transformers.Qwen2Config(**settings)


def mistral(**changes: Any) -> Any:
    settings = llama().to_dict() | {"sliding_window": 6} | changes
    for name in ("model_type", "mlp_bias", "attention_bias"):
        del settings[name]
    return transformers.MistralConfig(**settings)


def gpt2(**changes: Any) -> Any:
    settings = {
        "vocab_size": 320, "n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 64,
        "bos_token_id": 1, "eos_token_id": 2,
    }  # fmt: skip
    return transformers.GPT2Config(**(settings | changes))


YARNED = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16}
THEIRS = {
    "llama": llama(),
    "llama tied": llama(tie_word_embeddings=True),
    "llama biased": llama(attention_bias=True, mlp_bias=True),
    "llama wide heads": llama(head_dim=48, rms_norm_eps=1e-5),
    "llama many heads": llama(num_key_value_heads=4),
    "llama linear": llama(
        rope_parameters={"rope_type": "linear", "factor": 2.0, "rope_theta": 1e5}
    ),
    "llama llama3": llama(rope_parameters={"rope_theta": 5e5, **rope_to_hf(LLAMA3)}),
    "qwen3": qwen3(),
    "qwen3 tied": qwen3(tie_word_embeddings=True),
    "qwen3 biased": qwen3(attention_bias=True, rope_parameters={"rope_theta": 1e6}),
    "qwen3 yarn": qwen3(rope_parameters={"rope_theta": 1e6, **YARNED}),
    "qwen3 windows": qwen3(use_sliding_window=True, sliding_window=5, max_window_layers=1),
    "llama yarn": llama(rope_parameters={"rope_theta": 1e4, **YARNED, "beta_fast": 8.0}),
    "qwen2": qwen2(),
    "qwen2 tied": qwen2(tie_word_embeddings=True),
    "qwen2 windows": qwen2(use_sliding_window=True),
    "qwen2 yarn": qwen2(rope_parameters={"rope_theta": 1e6, **YARNED}),
    "mistral": mistral(),
    "mistral without windows": mistral(sliding_window=None),
    "mistral wide heads": mistral(head_dim=24),
    "gpt2": gpt2(),
    "gpt2 untied": gpt2(tie_word_embeddings=False),
    "gpt2 relu": gpt2(activation_function="relu", n_inner=96),
}


@pytest.mark.parametrize("name", THEIRS)
def test_we_read_a_folder_of_transformers(name: str, tmp_path: Path, randomize) -> None:  # type: ignore[no-untyped-def]
    theirs = transformers.AutoModelForCausalLM.from_config(THEIRS[name]).eval()
    randomize(theirs)
    theirs.save_pretrained(tmp_path)
    ours = load_model(tmp_path)
    assert ours.config.eos_token_ids == (2,)
    with torch.no_grad():
        assert_close(ours.logits(Batch.of(IDS)), theirs(IDS).logits, rtol=1e-5, atol=1e-5)
    theirs.generation_config.eos_token_id = None  # rows of equal length, whatever they say
    expected = theirs.generate(IDS, max_new_tokens=24, do_sample=False)[:, IDS.shape[1] :]
    endless = CausalLM(replace(ours.config, eos_token_ids=()))
    endless.load_state_dict(ours.state_dict())
    greedy = Sampling(temperature=0, max_new_tokens=24)
    requests = [Request(prompt_ids=ids, sampling=greedy) for ids in IDS.tolist()]
    assert [found.ids for found in generate(endless, requests)] == expected.tolist()


@pytest.mark.parametrize("name", ["gpt2", "qwen2 windows", "mistral", "qwen3 yarn"])
def test_a_folder_of_transformers_round_trips(
    name: str, tmp_path: Path, randomize, tokenizer: Tokenizer
) -> None:  # type: ignore[no-untyped-def]
    theirs = transformers.AutoModelForCausalLM.from_config(THEIRS[name]).eval()
    randomize(theirs)
    theirs.save_pretrained(tmp_path / "theirs")
    save_model(tmp_path / "ours", load_model(tmp_path / "theirs"), tokenizer, card=CARD)
    back = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "ours")
    assert type(back) is type(theirs)
    for key, tensor in theirs.state_dict().items():
        assert torch.equal(back.state_dict()[key], tensor), key
    with torch.no_grad():
        assert torch.equal(back(IDS).logits, theirs(IDS).logits)


OTHER_WORDS: dict[str, dict[str, Any]] = {
    "gpt2": {"resid_pdrop": 0.0, "attn_pdrop": 0.0, "embd_pdrop": 0.0, "initializer_range": 0.5},
    "llama": {"attention_dropout": 0.25, "initializer_range": 0.5, "eos_token_id": [2, 5]},
    "mistral": {"use_cache": False, "initializer_range": 0.5},
}


@pytest.mark.parametrize("name", OTHER_WORDS)
def test_unknown_config_fields_round_trip(name: str, tmp_path: Path, tokenizer: Tokenizer) -> None:
    theirs = transformers.AutoModelForCausalLM.from_config(THEIRS[name])
    theirs.save_pretrained(tmp_path / "theirs")
    edit(tmp_path / "theirs" / "config.json", somebodys={"own": [1]}, **OTHER_WORDS[name])
    before = transformers.AutoConfig.from_pretrained(tmp_path / "theirs").to_dict()
    (tmp_path / "theirs" / "generation_config.json").unlink()
    model = load_model(tmp_path / "theirs")
    save_model(tmp_path / "ours", model, tokenizer, card=CARD, dtype=torch.bfloat16)
    after = transformers.AutoConfig.from_pretrained(tmp_path / "ours").to_dict()
    assert OTHER_WORDS[name].items() <= after.items() and after["somebodys"] == {"own": [1]}
    elsewhere = {"dtype", "_name_or_path", "transformers_version"}
    changed = {word for word in before if before[word] != after.get(word)} - elsewhere
    # Sizes that follow from others are written out.
    assert changed <= {"n_inner", "head_dim"}, changed
    assert str(after["dtype"]).removeprefix("torch.") == "bfloat16"


def test_outdated_config_fields_are_removed(
    folder: Path, tmp_path: Path, tokenizer: Tokenizer
) -> None:
    edit(
        folder / "config.json",
        rope_parameters=None,
        rope_scaling={"type": "linear", "factor": 2.0},
        torch_dtype="float32",
        use_sliding_window=True,
        sliding_window=8,
        auto_map={"AutoConfig": "code.Config"},
    )
    model = load_model(folder)
    model.config = replace(model.config, rope=Rope(), sliding_window=None, eos_token_ids=(5,))
    save_model(tmp_path, model, tokenizer, card=CARD, dtype=torch.float16)
    said = json.loads((tmp_path / "config.json").read_text())
    gone = {"rope_scaling", "sliding_window", "use_sliding_window", "torch_dtype", "auto_map"}
    assert not gone & said.keys()
    assert (said["dtype"], said["eos_token_id"]) == ("float16", 5)
    assert load_config(tmp_path) == model.config


def test_the_names_of_a_bare_decoder_are_accepted(tmp_path: Path) -> None:
    """The first GPT-2 files, and those saved by AutoModel, lack the decoder's prefix."""
    for name in ("gpt2", "llama tied"):
        theirs = transformers.AutoModelForCausalLM.from_config(THEIRS[name]).eval()
        theirs.base_model.save_pretrained(tmp_path / name)
        state = load_file(tmp_path / name / "model.safetensors")
        state["h.0.attn.bias" if name == "gpt2" else "layers.0.self_attn.rotary_emb.inv_freq"] = (
            torch.ones(3)
        )
        save_file(state, tmp_path / name / "model.safetensors")
        with torch.no_grad():
            ours = load_model(tmp_path / name).logits(Batch.of(IDS))
            assert_close(ours, theirs(IDS).logits, rtol=1e-5, atol=1e-5)


def test_the_older_spelling_of_rope_gives_the_same_logits(tmp_path: Path) -> None:
    theirs = transformers.LlamaForCausalLM(THEIRS["llama llama3"])
    theirs.save_pretrained(tmp_path)
    now = load_model(tmp_path).logits(Batch.of(IDS))
    config = json.loads((tmp_path / "config.json").read_text())
    scaling = config.pop("rope_parameters")
    config |= {"rope_theta": scaling.pop("rope_theta"), "rope_scaling": scaling}
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert torch.equal(load_model(tmp_path).logits(Batch.of(IDS)), now)


def test_bf16_folders_load_in_their_own_dtype(tmp_path: Path) -> None:
    transformers.Qwen3ForCausalLM(THEIRS["qwen3"]).to(torch.bfloat16).save_pretrained(tmp_path)
    assert {p.dtype for p in load_model(tmp_path).parameters()} == {torch.bfloat16}
    as_float = load_model(tmp_path, dtype=torch.float32)
    assert {p.dtype for p in as_float.parameters()} == {torch.float32}


def test_shards_of_transformers_are_read(tmp_path: Path) -> None:
    theirs = transformers.LlamaForCausalLM(THEIRS["llama"])
    theirs.save_pretrained(tmp_path, max_shard_size="100KB")
    assert len(list(tmp_path.glob("model-*.safetensors"))) > 1
    for name, tensor in load_model(tmp_path).state_dict().items():
        assert torch.equal(tensor, theirs.state_dict()[name])


# Ours, read by us.


def test_saving_a_loaded_model_gives_the_same_bytes(
    folder: Path, tmp_path: Path, tokenizer: Tokenizer
) -> None:
    model, same_tokenizer = load(folder)
    save_model(tmp_path / "again", model, same_tokenizer, card=CARD)
    names = sorted(path.name for path in folder.iterdir())
    assert names == sorted(path.name for path in (tmp_path / "again").iterdir())
    for name in names:
        assert (folder / name).read_bytes() == (tmp_path / "again" / name).read_bytes(), name
    assert {"config.json", "model.safetensors", "tokenizer.json", "README.md"} < set(names)
    assert same_tokenizer.hash == tokenizer.hash


def test_a_tied_head_is_stored_once_and_tied_again(folder: Path) -> None:
    assert "lm_head.weight" not in load_file(folder / "model.safetensors")
    model = load_model(folder)
    assert model.lm_head.weight is model.model.embed_tokens.weight
    assert all(p.requires_grad and not p.is_meta for p in model.parameters())


def test_training_a_loaded_model_does_not_change_its_file(folder: Path) -> None:
    """Weights are memory-mapped: a step must change memory and never the file."""
    before = (folder / "model.safetensors").read_bytes()
    model = load_model(folder)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    model.logits(Batch.of(IDS)).logsumexp(-1).sum().backward()
    optimizer.step()
    assert (folder / "model.safetensors").read_bytes() == before
    assert not torch.equal(model.head, load_model(folder).head)


def _own_memory() -> int:
    """Memory of this process that no file backs."""
    facts = dict(line.split(":") for line in Path("/proc/self/status").read_text().splitlines())
    return int(facts["RssAnon"].split()[0]) * 1024


def test_weights_are_mapped_not_copied(tmp_path: Path, tiny_model, tokenizer: Tokenizer) -> None:  # type: ignore[no-untyped-def]
    model = tiny_model(vocab_size=2**18)  # 67 MB in float32
    save_model(tmp_path, model, tokenizer, card=CARD)
    load_model(tmp_path)  # whatever loading brings along for the first time
    before = _own_memory()
    loaded = load_model(tmp_path)
    assert torch.equal(loaded.head[-3:], model.head[-3:])
    assert _own_memory() - before < 15e6


def test_loading_does_not_import_torchs_compiler(folder: Path) -> None:
    """That would take longer than reading and answering with a small model."""
    code = (
        f"import sys, groundup; groundup.load({str(folder)!r})\n"
        "print('torch._dynamo' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("False\n", "")


def test_all_stop_tokens_survive(folder: Path) -> None:
    assert load_config(folder).eos_token_ids == (2, 0)
    assert json.loads((folder / "generation_config.json").read_text())["eos_token_id"] == [2, 0]


@pytest.mark.parametrize("tied", [True, False])
def test_large_models_are_sharded(
    tied: bool, tmp_path: Path, tiny_model, tokenizer: Tokenizer
) -> None:  # type: ignore[no-untyped-def]
    model = tiny_model(tie_word_embeddings=tied)
    save_model(tmp_path, model, tokenizer, card=CARD, max_shard_bytes=150_000)
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
    shards = sorted(path.name for path in tmp_path.glob("model*.safetensors"))
    assert len(shards) > 2 and set(index["weight_map"].values()) == set(shards)
    assert index["metadata"]["total_size"] == 4 * model.config.parameters
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path)
    for name, tensor in load_model(tmp_path).state_dict().items():
        assert torch.equal(tensor, model.state_dict()[name])
        assert torch.equal(tensor, theirs.state_dict()[name])
    # Saved again as one file, no shard of before remains to be mistaken for a part of it.
    save_model(tmp_path, model, tokenizer, card=CARD)
    assert [path.name for path in tmp_path.glob("model*")] == ["model.safetensors"]


def test_saving_keeps_the_rest_of_a_run_folder_and_leaves_no_temporary_files(
    folder: Path, tiny_model, tokenizer: Tokenizer
) -> None:  # type: ignore[no-untyped-def]
    (folder / "run.json").write_text("{}")
    (folder / ".partial").mkdir()  # as a killed save leaves it
    (folder / ".partial" / "model.safetensors").write_bytes(b"half")
    save_model(folder, tiny_model(), tokenizer, card=CARD, dtype=torch.bfloat16)
    assert (folder / "run.json").read_text() == "{}"
    assert not (folder / ".partial").exists()
    assert load_model(folder).head.dtype == torch.bfloat16
    assert (folder / "README.md").read_text() == CARD


def test_a_failed_save_keeps_the_previous_model(
    folder: Path, tiny_model, tokenizer: Tokenizer
) -> None:  # type: ignore[no-untyped-def]
    before = load_model(folder)
    not_utf8 = CARD + "\ud800"  # fails once weights and tokenizer are written
    with pytest.raises(UnicodeEncodeError):
        save_model(folder, tiny_model(vocab_size=64), tokenizer, card=not_utf8)
    for name, tensor in load_model(folder).state_dict().items():
        assert torch.equal(tensor, before.state_dict()[name])


SAVE_FOR_EVER = """
import sys
from pathlib import Path
import torch
from groundup.formats.folder import save_model
from groundup.formats.load import load
model, tokenizer = load(sys.argv[1])
print("saving", flush=True)
for value in range(10**9):
    for parameter in model.parameters():
        torch.nn.init.constant_(parameter, value)
    # One and several files by turns, so that each save has files of the other kind to replace.
    limit = 10**9 if value % 2 else 100_000
    save_model(sys.argv[2], model, tokenizer, card=str(value), max_shard_bytes=limit)
"""


def test_a_killed_save_leaves_a_whole_model_or_none(folder: Path, tmp_path: Path) -> None:
    target = tmp_path / "killed"
    moments = random.Random(0)
    for _ in range(2):
        process = Process([sys.executable, "-c", SAVE_FOR_EVER, str(folder), str(target)])
        while process.said() != "saving\n":
            assert process.poll() is None, process.said()
            time.sleep(0.01)
        time.sleep(moments.uniform(0.05, 0.3))
        process.send_signal(signal.SIGKILL)
        assert process.communicate()[0] == -signal.SIGKILL
        try:
            values = {
                float(v) for p in load_model(target).parameters() for v in p.detach().unique()
            }
        except UserError as error:
            assert "holds no finished model" in str(error)
        else:
            assert values == {float((target / "README.md").read_text())}


# Folders that cannot be read.


def refused(folder: Path, message: str) -> None:
    with pytest.raises(UserError, match=message):
        load(folder)


def test_a_missing_folder_or_config_is_named(tmp_path: Path, folder: Path) -> None:
    refused(tmp_path / "nowhere", "nowhere is not a folder")
    refused(tmp_path, "not a model itself but holds 1; give one of them: .*model")
    (folder / "config.json").unlink()
    refused(folder, "has no config.json, so it holds no finished model")


def test_damaged_files_are_named(folder: Path) -> None:
    weights = folder / "model.safetensors"
    whole = weights.read_bytes()
    for damaged in (whole[:-100], b"", b"\xff" * 64):
        weights.write_bytes(damaged)
        refused(folder, "model.safetensors is damaged")
    weights.write_bytes(whole)
    for damaged in (b"{", b"\xff\xfe", b"[]"):
        (folder / "config.json").write_bytes(damaged)
        refused(folder, "config.json is not")


def test_pickles_are_rejected(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    refused(folder, "is a pickle, which can run any code")


def test_missing_weights_are_named(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    refused(folder, "has a config.json but no model.safetensors")


@pytest.mark.parametrize(
    "changes",
    [{"num_hidden_layers": 1_000}, {"model_type": "qwen3_moe", "num_experts": 2**14}],
    ids=["layers", "experts"],
)
def test_thousands_of_layers_without_weights_are_not_allocated(
    folder: Path, changes: dict[str, object]
) -> None:
    edit(folder / "config.json", **changes)
    before = time.process_time()
    refused(folder, "feed-forward parts, but the weights are")
    assert time.process_time() - before < 1


def change_weights(folder: Path, **tensors: torch.Tensor | None) -> None:
    state = load_file(folder / "model.safetensors") | tensors
    state = {name: tensor.clone() for name, tensor in state.items() if tensor is not None}
    save_file(state, folder / "model.safetensors")


def test_tensors_that_do_not_fit_are_named(folder: Path) -> None:
    name = "model.layers.1.mlp.up_proj.weight"
    good = load_file(folder / "model.safetensors")[name].clone()
    change_weights(folder, **{name: None})
    refused(folder, f"the weights lack {name}")
    change_weights(folder, **{name: good[:-1]})
    refused(folder, rf"{name} has shape \[191, 64\], but config.json requires \[192, 64\]")
    change_weights(folder, **{name: good, "adapter.weight": torch.zeros(2)})
    refused(folder, "tensor adapter.weight is not part of the model")
    change_weights(folder, **{"adapter.weight": None})
    load(folder)


def test_a_stored_head_of_a_tied_model_must_be_the_embedding(folder: Path) -> None:
    embedding = load_file(folder / "model.safetensors")["model.embed_tokens.weight"].clone()
    change_weights(folder, **{"lm_head.weight": embedding})
    model = load_model(folder)
    assert model.lm_head.weight is model.model.embed_tokens.weight
    change_weights(folder, **{"lm_head.weight": embedding + 1})
    refused(folder, "lm_head.weight differs from the embedding")


@pytest.mark.parametrize("name", ["llama tied", "gpt2"])
def test_a_head_without_an_embedding_is_the_embedding_of_a_tied_model(
    name: str, tmp_path: Path
) -> None:
    """As saved by safetensors' own save_model: of two names it keeps the last."""
    theirs = transformers.AutoModelForCausalLM.from_config(THEIRS[name]).eval()
    theirs.save_pretrained(tmp_path)
    safetensors.torch.save_model(theirs, str(tmp_path / "model.safetensors"), {"format": "pt"})
    stored = load_file(tmp_path / "model.safetensors")
    head = stored["lm_head.weight"].clone()
    assert not any("embed_tokens" in tensor or "wte" in tensor for tensor in stored)
    ours = load_model(tmp_path)
    assert ours.lm_head.weight is ours.model.embed_tokens.weight
    with torch.no_grad():
        assert_close(ours.logits(Batch.of(IDS)), theirs(IDS).logits, rtol=1e-5, atol=1e-5)
    for bad, told in ((head[:-1], "has shape"), (head.to(torch.int32), "is of type I32")):
        change_weights(tmp_path, **{"lm_head.weight": bad})
        refused(tmp_path, f"tensor lm_head.weight {told}")


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.int64])
def test_a_stored_head_of_a_tied_model_is_checked_like_the_embedding(
    folder: Path, dtype: torch.dtype
) -> None:
    embedding = load_file(folder / "model.safetensors")["model.embed_tokens.weight"].clone()
    change_weights(folder, **{"lm_head.weight": embedding.to(dtype)})
    refused(folder, "tensor lm_head.weight is of type .*, but weights are read as F64")
    change_weights(folder, **{"lm_head.weight": embedding[:3]})
    refused(folder, r"tensor lm_head.weight has shape \[3, 64\]")


def test_one_tensor_under_two_names_is_rejected(folder: Path) -> None:
    name = "model.layers.1.self_attn.q_proj.weight"
    good = load_file(folder / "model.safetensors")[name].clone()
    change_weights(folder, **{name.removeprefix("model."): good * 0})
    refused(folder, f"is there twice, or as {name} as well")


def test_one_file_takes_precedence_over_shards_as_in_transformers(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    theirs = transformers.LlamaForCausalLM(THEIRS["llama"])
    theirs.save_pretrained(tmp_path)
    theirs.save_pretrained(tmp_path / "shards", max_shard_size="100KB")
    for path in (tmp_path / "shards").glob("model*"):
        path.rename(tmp_path / path.name)
    load_model(tmp_path)
    assert "Warning" not in capsys.readouterr().out  # the same weights twice
    change_weights(tmp_path, **{"model.norm.weight": torch.full((64,), 3.0)})
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path)
    for name, tensor in load_model(tmp_path).state_dict().items():
        assert torch.equal(tensor, theirs.state_dict()[name])
    assert "other weights in shards; the one file is read" in capsys.readouterr().out
    next(tmp_path.glob("model-00001*")).unlink()  # an index of what is there no longer
    assert load_model(tmp_path).state_dict()["model.norm.weight"][0] == 3.0
    assert "Warning" not in capsys.readouterr().out


def test_an_index_must_name_existing_files_in_the_folder(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    index = folder / "model.safetensors.index.json"
    for outside in ("model-00001-of-00002.safetensors", "../model/model.safetensors"):
        index.write_text(json.dumps({"weight_map": {"model.norm.weight": outside}}))
        refused(folder, "which is not in the folder")
    index.write_text("{}")
    refused(folder, "no weight_map")


def test_an_unknown_dtype_is_rejected(folder: Path) -> None:
    edit(folder / "config.json", dtype="int3")
    refused(folder, "dtype 'int3' is not supported; float64, float32, bfloat16, float16 are")


def test_a_changed_config_changes_the_model(tiny_model) -> None:  # type: ignore[no-untyped-def]
    """The same weights under another theta are another model: rope is read, not guessed."""
    model = tiny_model()
    turned = CausalLM(replace(model.config, rope=Rope(theta=100.0)))
    turned.load_state_dict(model.state_dict())
    batch = Batch.of(IDS)
    assert not torch.allclose(model.logits(batch), turned.logits(batch), atol=1e-2)
