from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch.testing import assert_close

from conftest import TinyModel
from groundup.adapters.attach import active_adapter, adapter_names, add_lora, merge, use_adapter
from groundup.adapters.lora import lora_layers
from groundup.adapters.quantization import is_quantized, quantize
from groundup.errors import UserError
from groundup.formats.adapter import base_of, save_adapted, with_adapters
from groundup.formats.export import export
from groundup.formats.folder import save_model
from groundup.formats.load import load, load_config, load_model, load_tokenizer, tokenizer_with
from groundup.formats.locate import ADAPTER_CONFIG
from groundup.formats.peft import WEIGHTS, load_adapter, read_origin, save_adapter
from groundup.formats.verify import verify
from groundup.formats.weights import weights_hash
from groundup.generation.engine import Engine
from groundup.generation.generate import generate, reference_generate, stream
from groundup.generation.request import Request
from groundup.generation.sampling import Sampling
from groundup.lm.model import CausalLM
from groundup.runs.files import file_hash
from groundup.text.tokenizer import Tokenizer
from groundup.train.batch import Batch
from peft_oracle import base_folder, our_logits, their_adapter, their_logits

IDS = torch.arange(2, 42).reshape(2, 20) * 7
CARD = "# An adapter\n"
GREEDY = Sampling(temperature=0, max_new_tokens=8)
GPT2 = {
    "model_type": "gpt2", "attention_bias": True, "mlp_bias": True, "hidden_act": "gelu_new",
    "num_key_value_heads": 4, "head_dim": 16, "rms_norm_eps": 1e-5, "eos_token_ids": (2, 0),
}  # fmt: skip


@pytest.fixture
def base(tmp_path: Path, tiny_model: TinyModel, tokenizer: Tokenizer) -> Path:
    save_model(tmp_path / "base", tiny_model(), tokenizer, card="# A base\n")
    return tmp_path / "base"


@torch.no_grad()
def logits(model: CausalLM) -> torch.Tensor:
    return model.logits(Batch.of(IDS))


def trained(model: CausalLM, seed: int = 1, **settings: Any) -> CausalLM:
    add_lora(model, 4, **settings)
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data += 0.2 * torch.randn(parameter.shape, generator=generator)
    return model


def write(folder: Path, base: Path, tokenizer: Tokenizer, **settings: Any) -> CausalLM:
    model = trained(load_model(base), **settings)
    save_adapted(folder, model, tokenizer, card=CARD, base=base)
    return model


def described(folder: Path, **changes: Any) -> None:
    path = folder / ADAPTER_CONFIG
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def relabelled(folder: Path, **changes: str | None) -> None:
    """Change the metadata of the weights."""
    with safe_open(folder / WEIGHTS, "pt") as file:
        metadata = file.metadata() | changes
    metadata = {name: value for name, value in metadata.items() if value is not None}
    save_file(load_file(folder / WEIGHTS), folder / WEIGHTS, metadata)


# Opening.


def test_an_adapters_folder_opens_like_any_other(
    base: Path, tmp_path: Path, tokenizer: Tokenizer
) -> None:
    model = write(tmp_path / "adapter", base, tokenizer)
    for source in (tmp_path / "adapter", str(tmp_path / "adapter")):
        again, its_tokenizer = load(source)
        assert torch.equal(logits(again), logits(model))
        assert active_adapter(again) == "default"
        assert its_tokenizer.encode("the sea") == tokenizer.encode("the sea")
        assert load_config(source) == again.config == model.config
    trained = {name for name, p in again.named_parameters() if p.requires_grad}
    assert all(".lora_" in name for name in trained) and len(trained) == 28
    halved = load_model(tmp_path / "adapter", dtype=torch.bfloat16)
    assert {parameter.dtype for parameter in halved.parameters()} == {torch.bfloat16}
    save_adapted(tmp_path / "again", again, tokenizer, card=CARD, base=base)
    for path in (tmp_path / "adapter").iterdir():
        assert path.read_bytes() == (tmp_path / "again" / path.name).read_bytes()


def test_both_folders_may_be_moved_together(
    base: Path, tmp_path: Path, tokenizer: Tokenizer
) -> None:
    expected = logits(write(tmp_path / "runs" / "adapter", base, tokenizer))
    (tmp_path / "elsewhere").mkdir()
    for name in ("runs", "base"):
        shutil.move(tmp_path / name, tmp_path / "elsewhere" / name)
    assert torch.equal(logits(load_model(tmp_path / "elsewhere" / "runs" / "adapter")), expected)


def test_a_peft_folder_opens_if_its_base_is_found(tmp_path: Path) -> None:
    base = base_folder(tmp_path / "base")
    theirs = their_adapter(base)
    theirs.save_pretrained(tmp_path / "adapter")
    model = load_model(tmp_path / "adapter").eval()
    assert_close(our_logits(model), their_logits(theirs), rtol=1e-5, atol=1e-5)
    # A copy of the base's config next to it means the same.
    shutil.copy(base / "config.json", tmp_path / "adapter")
    assert torch.equal(our_logits(load_model(tmp_path / "adapter")), our_logits(model))
    described(tmp_path / "adapter", base_model_name_or_path="../base")
    assert torch.equal(our_logits(load_model(tmp_path / "adapter")), our_logits(model))
    for name in ("owner/name", str(tmp_path / "gone"), "./gone", "a\0b", "x" * 5_000):
        described(tmp_path / "adapter", base_model_name_or_path=name)
        with pytest.raises(UserError, match=r"needs the base model '.*, which is not here; write"):
            load_model(tmp_path / "adapter")
    described(tmp_path / "adapter", base_model_name_or_path="owner/name")
    with pytest.raises(UserError, match=r"a folder or a name \(such as hub:owner/name\)"):
        load_tokenizer(tmp_path / "adapter")
    for nothing in (None, ""):
        described(tmp_path / "adapter", base_model_name_or_path=nothing)
        with pytest.raises(UserError, match=r"does not name its base model; write the path"):
            load_config(tmp_path / "adapter")


def test_the_base_is_identified_by_the_hash_of_its_weights(
    base: Path, tmp_path: Path, tiny_model: TinyModel, tokenizer: Tokenizer
) -> None:
    write(tmp_path / "adapter", base, tokenizer)
    assert weights_hash(base) == file_hash(base / "model.safetensors")
    assert read_origin(tmp_path / "adapter").base_sha256 == weights_hash(base)
    (base / "README.md").write_text("Another card.")
    load_model(tmp_path / "adapter")
    other = tiny_model()
    with torch.no_grad():
        other.model.norm.weight[0] += 1
    save_model(base, other, tokenizer, card=CARD)
    with pytest.raises(UserError, match=r"was trained on another model than this one \(the SHA"):
        load_model(tmp_path / "adapter")
    relabelled(tmp_path / "adapter", base_sha256=None)
    load_model(tmp_path / "adapter")


def test_the_hash_covers_all_shards(
    tmp_path: Path, tiny_model: TinyModel, tokenizer: Tokenizer
) -> None:
    hashes = set()
    for change in (0.0, 1.0):
        model = tiny_model()
        with torch.no_grad():
            model.model.norm.weight[0] += change
        save_model(tmp_path, model, tokenizer, card=CARD, max_shard_bytes=100_000)
        assert len(list(tmp_path.glob("model-*.safetensors"))) > 1
        hashes.add(weights_hash(tmp_path))
    assert len(hashes) == 2


def test_tokenizer_and_stop_tokens_of_the_folder_take_precedence(
    base: Path, tmp_path: Path, tokenizer: Tokenizer
) -> None:
    write(tmp_path / "adapter", base, tokenizer)
    settings = tmp_path / "adapter" / "generation_config.json"
    settings.write_text(json.dumps({"eos_token_id": [5]}))
    assert load_config(tmp_path / "adapter").eos_token_ids == (5,)
    assert load_model(tmp_path / "adapter").config.eos_token_ids == (5,)
    assert load_config(base).eos_token_ids == (2, 0)
    (tmp_path / "adapter" / "tokenizer.json").unlink()
    found = load_tokenizer(tmp_path / "adapter")
    assert found.encode("the sea") == tokenizer.encode("the sea")
    # Put on another base than it names, it has that one's.
    described(tmp_path / "adapter", base_model_name_or_path="owner/name")
    relabelled(tmp_path / "adapter", base=None)
    found = tokenizer_with(tmp_path / "adapter", base)
    assert found.encode("the sea") == tokenizer.encode("the sea")
    tokenizer.save(tmp_path / "adapter")
    (base / "tokenizer.json").unlink()
    found = tokenizer_with(tmp_path / "adapter", base)
    assert found.encode("the sea") == tokenizer.encode("the sea")


@pytest.mark.parametrize(
    "how",
    [
        {"kind": "nf4"},
        {"kind": "nf4", "block_size": 128, "double_quant": False, "targets": ["q_proj"]},
        {"kind": "int8"},
    ],
    ids=str,
)
def test_qlora_round_trips_on_an_equally_quantized_base(
    how: dict[str, Any], base: Path, tmp_path: Path, tokenizer: Tokenizer
) -> None:
    model = trained(quantize(load_model(base), **how))
    save_adapted(tmp_path / "adapter", model, tokenizer, card=CARD, base=base)
    again = load_model(tmp_path / "adapter")
    assert is_quantized(again)
    assert torch.equal(logits(again), logits(model))
    halved = load_model(tmp_path / "adapter", dtype=torch.bfloat16)
    assert_close(logits(halved), logits(model.bfloat16()), rtol=0, atol=0)


def test_qlora_on_a_stored_4_bit_base(base: Path, tmp_path: Path, tokenizer: Tokenizer) -> None:
    save_model(tmp_path / "four", quantize(load_model(base)), tokenizer, card=CARD)
    model = write(tmp_path / "adapter", tmp_path / "four", tokenizer)
    again = load_model(tmp_path / "adapter")
    assert is_quantized(again) and torch.equal(logits(again), logits(model))


@pytest.mark.usefixtures("unchecked_types")
def test_the_recorded_quantization_is_checked(
    base: Path, tmp_path: Path, tokenizer: Tokenizer
) -> None:
    write(tmp_path / "adapter", base, tokenizer)
    for said, message in {
        '{"kind": "nf5"}': r"kind='nf5' is unknown",
        '{"kind": 4}': r"was quantized with 'kind': 4, which is unknown",
        '{"shape": 4}': r"was quantized with 'shape': 4",
        '{"targets": ["x"]}': r"match",
        "[": r"its quantization is not JSON",
        "3": r"its quantization is not JSON",
    }.items():
        relabelled(tmp_path / "adapter", quantisation=said)
        with pytest.raises(UserError, match=message):
            load_model(tmp_path / "adapter")


def test_an_adapter_on_an_adapter(base: Path, tmp_path: Path, tokenizer: Tokenizer) -> None:
    """The second was trained with the first merged into the base."""
    write(tmp_path / "first", base, tokenizer)
    model = trained(merge(load_model(tmp_path / "first")), seed=2, targets=["v_proj"])
    save_adapted(tmp_path / "second", model, tokenizer, card=CARD, base=tmp_path / "first")
    assert base_of(tmp_path / "second").samefile(tmp_path / "first")
    again = load_model(tmp_path / "second")
    assert torch.equal(logits(again), logits(model)) and adapter_names(again) == ["default"]
    write(tmp_path / "first", base, tokenizer, seed=3)
    with pytest.raises(UserError, match=r"trained on another model"):
        load_model(tmp_path / "second")


def test_an_adapter_that_is_its_own_base_is_rejected(
    base: Path, tmp_path: Path, tokenizer: Tokenizer
) -> None:
    write(tmp_path / "one", base, tokenizer)
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    relabelled(tmp_path / "one", base="../two")
    relabelled(tmp_path / "two", base="../one")
    for read in (load_model, load_config):
        with pytest.raises(UserError, match=r"is, through .*, its own base"):
            read(tmp_path / "one")


def test_an_adapter_of_gpt2_is_one_of_peft(
    tmp_path: Path, tiny_model: TinyModel, tokenizer: Tokenizer
) -> None:
    save_model(tmp_path / "base", tiny_model(**GPT2), tokenizer, card=CARD)
    model = write(tmp_path / "adapter", tmp_path / "base", tokenizer)
    assert torch.equal(logits(load_model(tmp_path / "adapter")), logits(model))
    checks = {check.name: check.status for check in verify(tmp_path / "adapter")}
    assert checks["logits as transformers computes them"] == "same"
    assert "differs" not in checks.values()


def test_an_adapter_of_gpt2_of_an_earlier_release_is_read(
    tmp_path: Path, tiny_model: TinyModel, tokenizer: Tokenizer
) -> None:
    """It used our model's names of the layers."""
    save_model(tmp_path / "base", tiny_model(**GPT2), tokenizer, card=CARD)
    model = write(tmp_path / "adapter", tmp_path / "base", tokenizer)
    tensors = {}
    for path, layer in lora_layers(model).items():
        for part, one in zip("AB", layer.own_parameters("default"), strict=True):
            tensors[f"base_model.model.{path}.lora_{part}.weight"] = one.detach()
    save_file(tensors, tmp_path / "adapter" / WEIGHTS)
    names = ["q_proj", "k_proj", "v_proj", "o_proj", "up_proj", "down_proj"]
    described(
        tmp_path / "adapter", target_modules=names, rank_pattern={}, alpha_pattern={}, r=4,
        lora_alpha=32, fan_in_fan_out=False, base_model_name_or_path=str(tmp_path / "base"),
    )  # fmt: skip
    assert torch.equal(logits(load_model(tmp_path / "adapter")), logits(model))


# Writing.


def test_a_run_keeps_its_files_and_a_kill_leaves_no_config(
    base: Path, tmp_path: Path, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "run.json").write_text("{}")
    write(folder, base, tokenizer)
    names = {path.name for path in folder.iterdir()}
    assert names == {
        *("run.json", "README.md", "tokenizer.json", "tokenizer_config.json"),
        *("generation_config.json", ADAPTER_CONFIG, WEIGHTS),
    }
    assert (folder / "README.md").read_text() == CARD
    replace, left = os.replace, iter(range(100))

    def killed_at(count: int) -> Callable[[Path, Path], None]:
        def replaced(source: Path, target: Path) -> None:
            if next(left) == count:
                raise KeyboardInterrupt
            replace(source, target)

        return replaced

    for count in range(6):
        write(folder, base, tokenizer)
        left = iter(range(100))
        with monkeypatch.context() as patch:
            patch.setattr(os, "replace", killed_at(count))
            with pytest.raises(KeyboardInterrupt):
                write(folder, base, tokenizer, seed=2)
        assert not (folder / ADAPTER_CONFIG).exists()
        with pytest.raises(UserError, match=r"has no config.json, so it holds no finished model"):
            load_model(folder)


def test_a_model_with_adapters_is_not_saved_as_a_whole(
    base: Path, tmp_path: Path, tokenizer: Tokenizer
) -> None:
    model = trained(load_model(base))
    with pytest.raises(UserError, match=r"has adapters on it \(default\); merge"):
        save_model(tmp_path / "out", model, tokenizer, card=CARD)
    expected = logits(model)
    save_model(tmp_path / "out", merge(model), tokenizer, card=CARD)
    assert_close(logits(load_model(tmp_path / "out")), expected, rtol=1e-5, atol=1e-4)


@pytest.mark.filterwarnings("ignore:.*tie")
def test_a_separate_head_is_kept_when_merged_into_a_tied_model(
    tmp_path: Path, tokenizer: Tokenizer
) -> None:
    base = base_folder(tmp_path / "base", tie_word_embeddings=True, vocab_size=320)
    tokenizer.save(base)
    theirs = their_adapter(base, modules_to_save=["lm_head"])
    theirs.save_pretrained(tmp_path / "adapter")
    model = merge(load_model(tmp_path / "adapter"), reversible=False).eval()
    save_model(tmp_path / "out", model, tokenizer, card=CARD)
    expected = their_logits(theirs)
    assert_close(our_logits(load_model(tmp_path / "out")), expected, rtol=1e-5, atol=1e-5)
    read = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out").eval()
    assert_close(their_logits(read), expected, rtol=1e-5, atol=1e-5)
    for to in ("hf", "gguf"):
        copy = load_model(export(tmp_path / "adapter", to, "f32"))
        assert_close(our_logits(copy), expected, rtol=1e-5, atol=1e-5)
    # PEFT wrote no tokenizer with its adapter.
    checks = verify(tmp_path / "adapter")
    assert {one.status for one in checks} <= {"same", "not checked"}
    assert "ids as transformers makes them" in [one.name for one in checks]


# Several adapters, chosen at generation.


@pytest.fixture
def several(base: Path, tmp_path: Path, tokenizer: Tokenizer) -> CausalLM:
    write(tmp_path / "sea", base, tokenizer, seed=1)
    write(tmp_path / "v1.5", base, tokenizer, seed=2, use_dora=True)
    model = load_model(base)
    assert with_adapters(model, [tmp_path / "sea", tmp_path / "v1.5"], base=base) == ["sea", "v1_5"]
    assert active_adapter(model) is None
    return model


def test_each_request_is_answered_by_its_adapter(
    several: CausalLM, base: Path, tmp_path: Path
) -> None:
    """As with that adapter alone, in any batch; afterwards the model is unchanged."""
    prompts = [[5, 6, 7], [9], [5, 6, 7, 8, 9, 10]]
    alone = {None: base, "sea": tmp_path / "sea", "v1_5": tmp_path / "v1.5"}
    expected, requests = [], []
    for name, folder in alone.items():
        plain = [Request(prompt_ids=prompt, sampling=GREEDY) for prompt in prompts]
        expected += [answer.ids for answer in generate(load_model(folder), plain)]
        requests += [Request(prompt_ids=p, sampling=GREEDY, adapter=name) for p in prompts]
    mixed = [requests[i] for i in (3, 0, 6, 7, 1, 4, 2, 5, 8)]
    wanted = [expected[i] for i in (3, 0, 6, 7, 1, 4, 2, 5, 8)]
    assert len({tuple(ids) for ids in expected}) > 3
    assert [answer.ids for answer in generate(several, mixed)] == wanted
    assert [answer.ids for answer in reference_generate(several, mixed)] == wanted
    assert active_adapter(several) is None
    use_adapter(several, "sea")
    assert [answer.ids for answer in generate(several, requests[:3])] == expected[3:6]
    assert [answer.ids for answer in generate(several, requests[6:])] == expected[6:]
    assert active_adapter(several) == "sea"


def test_a_stream_does_not_change_the_model_between_its_pieces(
    several: CausalLM, tokenizer: Tokenizer
) -> None:
    requests = {
        name: Request(prompt="The sea", sampling=GREEDY, adapter=name) for name in ("sea", "v1_5")
    }
    expected = {n: generate(several, [r], tokenizer)[0].text for n, r in requests.items()}
    streams = {name: stream(several, tokenizer, request) for name, request in requests.items()}
    texts = dict.fromkeys(requests, "")
    for _ in range(9):
        for name, pieces in streams.items():
            texts[name] += next(pieces, "")
            assert active_adapter(several) is None
    assert texts == expected and len(set(texts.values())) == 2


def test_an_unknown_adapter_is_rejected_like_any_bad_request(
    several: CausalLM, tokenizer: Tokenizer
) -> None:
    unknown = Request(prompt_ids=[5], adapter="lake")
    message = r"adapter='lake' is not available here \(there is sea, v1_5\); load it"
    for answer in (generate, reference_generate):
        with pytest.raises(UserError, match=message):
            answer(several, [Request(prompt_ids=[5]), unknown])
    with pytest.raises(UserError, match=r"no adapter called 'lake'; it has sea, v1_5"):
        next(stream(several, tokenizer, unknown))
    use_adapter(several, "sea")
    engine = Engine(several)
    engine.submit(Request(prompt_ids=[5], adapter="sea"))
    with pytest.raises(UserError, match=r"adapter='v1_5' is not available here \(there is sea\)"):
        engine.submit(Request(prompt_ids=[5], adapter="v1_5"))
    assert active_adapter(several) == "sea"


def test_adapters_of_other_bases_are_not_combined(
    base: Path, tmp_path: Path, tiny_model: TinyModel, tokenizer: Tokenizer
) -> None:
    other = tmp_path / "other"
    save_model(other, tiny_model().bfloat16(), tokenizer, card=CARD, dtype=torch.bfloat16)
    write(tmp_path / "sea", other, tokenizer)
    model = load_model(base)
    with pytest.raises(UserError, match=r"adapter in .*sea was trained on another model"):
        with_adapters(model, [tmp_path / "sea"], base=base)
    assert with_adapters(model, [tmp_path / "sea"]) == ["sea"]  # as whoever calls wants it
    with pytest.raises(UserError, match=r"already has an adapter called 'sea'"):
        with_adapters(model, [tmp_path / "sea"])
    with pytest.raises(UserError, match=r"has no adapter_config.json"):
        with_adapters(model, [other])


def test_an_adapter_trained_with_others_is_saved_alone(
    several: CausalLM, base: Path, tmp_path: Path, tokenizer: Tokenizer
) -> None:
    save_adapted(tmp_path / "out", several, tokenizer, card=CARD, base=base, name="sea")
    one, other = tmp_path / "out" / WEIGHTS, tmp_path / "sea" / WEIGHTS
    assert one.read_bytes() == other.read_bytes()
    save_adapter(tmp_path / "bare", several, name="v1_5", base=base)
    again = load_model(base)
    load_adapter(again, tmp_path / "bare")
    use_adapter(several, "v1_5")
    assert torch.equal(logits(again), logits(several))
