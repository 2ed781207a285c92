"""The GPT of the NumPy engine: training, and its model folder read by `lm` and `transformers`."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from safetensors.numpy import load_file, save_file

from groundup.errors import UserError
from groundup.formats.folder import save_model
from groundup.formats.load import load_model
from groundup.nn.gpt import GPT, GPTConfig
from groundup.nn.optim import AdamW
from groundup.text.tokenizer import Tokenizer
from groundup.train.batch import Batch


def config(**changes: Any) -> GPTConfig:
    sizes: dict[str, Any] = {
        "vocab_size": 64,
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "intermediate_size": 48,
        "max_position_embeddings": 32,
    }
    return GPTConfig(**{**sizes, **changes})


def with_random_weights(model: GPT, seed: int = 0) -> GPT:
    """Output projections start at zero, which would hide errors."""
    random = np.random.default_rng(seed)
    for weight in model.weights.values():
        weight.data = weight.data + random.normal(0, 0.2, weight.shape)
    return model


IDS = np.random.default_rng(5).integers(64, size=(3, 17))


@pytest.mark.parametrize(
    "changes", [{}, {"tie_word_embeddings": False}, {"rope_theta": 5e5}, {"num_key_value_heads": 4}]
)
def test_model_folder_is_read_by_lm_and_transformers(
    tmp_path: Path, changes: dict[str, Any]
) -> None:
    model = with_random_weights(GPT(config(**changes)))
    model.save_pretrained(tmp_path)
    logits = torch.from_numpy(model(IDS).data)
    ids = torch.from_numpy(IDS)
    ours = load_model(tmp_path)
    with torch.no_grad():
        torch.testing.assert_close(ours.logits(Batch.of(ids)), logits, rtol=1e-4, atol=1e-4)
        theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path)
        torch.testing.assert_close(theirs(ids).logits, logits, rtol=1e-4, atol=1e-4)


def test_model_folder_of_lm_is_readable(tmp_path: Path, workshop: Any) -> None:
    model = with_random_weights(GPT(config(vocab_size=64)))
    model.save_pretrained(tmp_path / "numpy")
    tokenizer = Tokenizer.load(workshop.folder / "tokenizer")
    save_model(tmp_path / "torch", load_model(tmp_path / "numpy"), tokenizer, card="")
    back = GPT.from_pretrained(tmp_path / "torch")
    assert back.config == model.config
    for name, array in model.state_dict().items():
        np.testing.assert_array_equal(back.state_dict()[name], array)


def test_model_folder_is_replaced_atomically(tmp_path: Path) -> None:
    model = with_random_weights(GPT(config()))
    model.save_pretrained(tmp_path)
    (tmp_path / "usual").touch()
    usual = (tmp_path / "usual").stat().st_mode
    for file in tmp_path.iterdir():
        assert file.stat().st_mode == usual, file
    with open(tmp_path / "model.safetensors", "rb") as old:
        before = old.read()
        old.seek(0)
        with_random_weights(model, seed=9).save_pretrained(tmp_path)
        assert old.read() == before  # a process that has the old file open keeps reading it
    described = (tmp_path / "config.json").read_bytes()
    (tmp_path / "model.safetensors").unlink()
    (tmp_path / "model.safetensors").mkdir()  # cannot be replaced by a file
    with pytest.raises(OSError, match=r"model\.safetensors"):
        GPT(config(vocab_size=128)).save_pretrained(tmp_path)
    assert (tmp_path / "config.json").read_bytes() == described
    assert {file.name for file in tmp_path.iterdir()} == {
        *("config.json", "model.safetensors", "usual")
    }


def test_float64_weights_are_preserved(tmp_path: Path) -> None:
    model = with_random_weights(GPT(config(), dtype=np.float64))
    model.save_pretrained(tmp_path)
    np.testing.assert_array_equal(GPT.from_pretrained(tmp_path)(IDS).data, model(IDS).data)
    single = GPT.from_pretrained(tmp_path, dtype=np.float32)
    assert single.weights["model.norm.weight"].dtype == np.float32


def test_names_and_shapes_equal_transformers() -> None:
    for tied in (True, False):
        shape = config(tie_word_embeddings=tied)
        described = transformers.Qwen3Config(
            **{name: getattr(shape, name) for name in shape.__dataclass_fields__}
        )
        theirs = transformers.Qwen3ForCausalLM(described)
        names = {name: tuple(p.shape) for name, p in theirs.named_parameters()}
        assert GPT(shape).config.shapes() == names


def test_it_learns_one_batch_and_recites_it() -> None:
    model = GPT(config(), rng=1)
    text = np.random.default_rng(2).integers(64, size=(2, 13))
    optimizer = AdamW(model.parameters(), lr=0.01, weight_decay=0.0)
    first = float(model.loss(text[:, :-1], text[:, 1:]))
    assert first == pytest.approx(np.log(64), rel=0.02)  # a new model predicts uniformly
    for _ in range(120):
        loss = model.loss(text[:, :-1], text[:, 1:])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert float(loss) < 0.02
    np.testing.assert_array_equal(model.generate(text[0, :3], 10, temperature=0), text[0])


def test_sampled_tokens_follow_the_softmax() -> None:
    model = with_random_weights(GPT(config(vocab_size=8, num_hidden_layers=1)))
    start = np.array([1, 2, 3])
    logits = model(start[None]).data[0, -1].astype(np.float64)
    expected = np.exp(logits - logits.max())
    expected /= expected.sum()
    drawn = [model.generate(start, 1, rng=seed)[-1] for seed in range(300)]
    shares = np.bincount(drawn, minlength=8) / 300
    # Four standard errors of a share.
    assert (np.abs(shares - expected) < 4 * np.sqrt(expected * (1 - expected) / 300) + 1e-3).all()


def test_no_position_attends_to_the_future() -> None:
    model = with_random_weights(GPT(config()))
    changed = IDS.copy()
    changed[:, 9:] = (changed[:, 9:] + 1) % 64
    np.testing.assert_array_equal(model(IDS).data[:, :9], model(changed).data[:, :9])
    assert np.abs(model(IDS).data[:, 9:] - model(changed).data[:, 9:]).max() > 0.1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hidden_act": "gelu"}, "hidden_act='gelu'"),
        ({"use_sliding_window": True}, "use_sliding_window=True"),
        ({"rope_parameters": {"rope_type": "yarn", "factor": 4.0}}, "rope_parameters=.*yarn"),
        ({"vocab_size": 0}, "vocab_size=0 must be a whole number from 1"),
        ({"num_key_value_heads": 0}, "num_key_value_heads=0 must be a whole number from 1"),
        ({"rope_parameters": [1]}, "cannot be read"),
        ({"rope_parameters": None, "rope_theta": "x"}, "rope_theta='x' must be a finite number"),
        ({"rope_parameters": None, "rope_theta": None}, "rope_theta=None must be a finite number"),
        ({"rope_parameters": {"rope_theta": 0}}, "rope_theta=0 must be a finite number above 0"),
        ({"rms_norm_eps": float("inf")}, "rms_norm_eps=inf must be a finite number above 0"),
    ],
)
def test_rejects_a_config_of_another_model(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    GPT(config()).save_pretrained(tmp_path)
    described = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**described, **changes}))
    with pytest.raises(UserError, match=message):
        GPT.from_pretrained(tmp_path)


def test_missing_config_fields_mean_qwen3s_defaults(tmp_path: Path) -> None:
    model = with_random_weights(GPT(config(tie_word_embeddings=False, head_dim=128)))
    model.save_pretrained(tmp_path)
    described = json.loads((tmp_path / "config.json").read_text())
    left_out = ("tie_word_embeddings", "head_dim", "max_position_embeddings")
    for name in left_out:
        del described[name]
    (tmp_path / "config.json").write_text(json.dumps(described))
    found, theirs = GPT.from_pretrained(tmp_path).config, transformers.Qwen3Config()
    assert [getattr(found, name) for name in left_out] == [getattr(theirs, n) for n in left_out]
    assert replace(found, max_position_embeddings=32) == model.config
    described.pop("vocab_size")
    (tmp_path / "config.json").write_text(json.dumps(described))
    with pytest.raises(UserError, match="lacks a size"):
        GPT.from_pretrained(tmp_path)


@pytest.mark.parametrize(
    "ids", [np.array([[64]]), np.array([[-1]]), np.array([1, 2]), np.array([[0.5]])]
)
def test_rejects_unknown_ids(ids: Any, unchecked_types: None) -> None:
    with pytest.raises(ValueError, match="ids"):
        GPT(config())(ids)


def test_generation_requires_a_prompt_and_a_temperature() -> None:
    with pytest.raises(ValueError, match="0 ids to continue"):
        GPT(config()).generate(np.zeros(0, int), 3)
    with pytest.raises(ValueError, match=r"temperature=-1\.0"):
        GPT(config()).generate(np.array([1]), 3, temperature=-1.0)


def test_bad_input_is_reported_in_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="num_key_value_heads=3 does not divide"):
        config(num_key_value_heads=3)
    with pytest.raises(UserError, match="head_dim=7 is odd"):
        config(head_dim=7)
    with pytest.raises(ValueError, match="33 tokens are more than max_position_embeddings=32"):
        GPT(config())(np.zeros((1, 33), int))
    for shape in ((1, 0), (0, 3)):
        with pytest.raises(ValueError, match=rf"ids of shape \({shape[0]}, {shape[1]}\) hold no"):
            GPT(config())(np.zeros(shape, int))
    with pytest.raises(UserError, match=r"config\.json cannot be read"):
        GPT.from_pretrained(tmp_path)
    model = GPT(config())
    model.save_pretrained(tmp_path)
    described = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**described, "model_type": "gpt2"}))
    with pytest.raises(UserError, match="'gpt2'"):
        GPT.from_pretrained(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({**described, "hidden_size": 16}))
    with pytest.raises(UserError, match=r"embed_tokens\.weight has shape \(64, 32\)"):
        GPT.from_pretrained(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(described))
    (tmp_path / "model.safetensors").write_bytes(b"nothing")
    with pytest.raises(UserError, match=r"model\.safetensors cannot be read"):
        GPT.from_pretrained(tmp_path)
    save_file({}, tmp_path / "model.safetensors")
    with pytest.raises(UserError, match=r"missing: model\.embed_tokens\.weight, "):
        GPT.from_pretrained(tmp_path)
    state = {**model.state_dict(), "extra": np.zeros(1, np.float32)}
    save_file(state, tmp_path / "model.safetensors")
    with pytest.raises(UserError, match="unexpected: extra"):
        GPT.from_pretrained(tmp_path)
    assert "extra" in load_file(tmp_path / "model.safetensors")
