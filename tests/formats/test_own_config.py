"""Shapes that Hugging Face cannot express: our folders keep them, and others reject them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig

from architectures import with_random_weights
from groundup.errors import UserError
from groundup.formats.export import export
from groundup.formats.folder import save_model
from groundup.formats.hf_config import config_from_hf, config_to_hf
from groundup.formats.load import load
from groundup.formats.own_config import not_in_hugging_face
from groundup.formats.verify import verify
from groundup.lm.config import ExpertsConfig, ModelConfig, Rope
from groundup.text.tokenizer import Tokenizer
from groundup.train.batch import Batch

QWEN3 = ModelConfig.of(width=64, depth=2, vocab_size=320, context=64, heads=4, kv_heads=2)
GPT2 = replace(
    QWEN3, model_type="gpt2", hidden_act="gelu_new", num_key_value_heads=4, attention_bias=True,
    mlp_bias=True, rms_norm_eps=1e-5, intermediate_size=256,
)  # fmt: skip
OWN = {
    "qwen3 cannot express alibi positions": replace(QWEN3, position_embedding_type="alibi"),
    "qwen3 cannot express tokens without positions": replace(
        QWEN3, position_embedding_type="none", num_attention_heads=64, head_dim=1
    ),
    "gpt2 cannot express sinusoidal positions": replace(
        GPT2, position_embedding_type="sinusoidal", head_dim=15
    ),
    "qwen3 cannot express feed-forward part without a gate": replace(QWEN3, is_gated_act=False),
    "qwen3 cannot express norms after": replace(QWEN3, do_layer_norm_before=False),
    "qwen3 cannot express experts": replace(QWEN3, experts=ExpertsConfig(4, 2, 64)),
    "gpt2 cannot express feed-forward part with a gate": replace(
        GPT2, is_gated_act=True, hidden_act="silu"
    ),
    "gpt2 cannot express rope positions and window": replace(
        GPT2, position_embedding_type="rope", sliding_window=8
    ),
    "gpt2 cannot express grouped queries": replace(GPT2, num_key_value_heads=2),
    "mistral cannot express window in only some layers": replace(
        QWEN3, model_type="mistral", sliding_window=8, windowed_layers=(0,)
    ),
    "qwen3 cannot express biases in its feed-forward part": replace(QWEN3, mlp_bias=True),
    "mistral cannot express biases in its attention": replace(
        QWEN3, model_type="mistral", attention_bias=True
    ),
    "qwen2 cannot express attention without biases": replace(QWEN3, model_type="qwen2"),
    "gpt2 cannot express feed-forward part without biases": replace(GPT2, mlp_bias=False),
    "gpt2 cannot express heads whose total width is not the model's": replace(GPT2, head_dim=8),
    "gpt2 cannot express rope positions": replace(
        GPT2, position_embedding_type="rope", rope=Rope(theta=5e5, type="linear", factor=4.0)
    ),
}


@pytest.mark.parametrize("said", OWN)
def test_a_folder_keeps_shapes_without_a_hugging_face_class(
    said: str, tmp_path: Path, tokenizer: Tokenizer
) -> None:
    config = OWN[said]
    why = not_in_hugging_face(config)
    assert why is not None and said in why
    model = with_random_weights(config)
    save_model(tmp_path / "model", model, tokenizer, card="")
    again, _ = load(tmp_path / "model")
    assert again.config == config
    ids = torch.randint(320, (2, 20))
    assert torch.equal(again.logits(Batch.of(ids)), model.logits(Batch.of(ids)))
    for to in ("hf", "gguf"):
        with pytest.raises(UserError, match=said):
            export(tmp_path / "model", to, out=tmp_path / to)
        assert not (tmp_path / to).exists()
    with pytest.raises(ValueError, match="groundup"):
        AutoConfig.from_pretrained(tmp_path / "model")


def test_such_a_folder_is_verified_without_transformers(
    tmp_path: Path, tokenizer: Tokenizer
) -> None:
    save_model(
        tmp_path,
        with_random_weights(OWN["qwen3 cannot express alibi positions"]),
        tokenizer,
        card="",
    )
    checks = verify(tmp_path)
    assert [check.name for check in checks if check.status == "differs"] == []
    unknown = [check for check in checks if "alibi positions" in check.about]
    assert len(unknown) == 2 and all(check.status == "not checked" for check in unknown)


@pytest.mark.parametrize("kind", ["qwen3", "qwen2", "llama", "mistral"])
def test_standard_shapes_keep_their_names(kind: Any) -> None:
    config = replace(QWEN3, model_type=kind, attention_bias=kind == "qwen2")
    assert not_in_hugging_face(config) is None
    assert config_to_hf(config)["model_type"] == kind
    assert not_in_hugging_face(replace(QWEN3, hidden_act="gelu")) is None
    assert not_in_hugging_face(replace(QWEN3, sliding_window=8, windowed_layers=(1,))) is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"position_embedding_type": "compass"}, "position_embedding_type='compass'"),
        ({"position_embedding_type": ["rope"]}, "must be one of rope, learned"),
        ({"base_model_type": "groundup"}, "model_type 'groundup' is not supported"),
        ({"base_model_type": None}, "model_type None is not supported"),
        ({"base_model_type": "lstm"}, "groundup"),
        ({"is_gated_act": "yes"}, "is_gated_act='yes'"),
        ({"sliding_window": -1}, "sliding_window=-1"),
        ({"windowed_layers": "all"}, "windowed_layers='all', which must be a list of layers"),
        ({"windowed_layers": [7]}, r"windowed_layers=\[7\], which .* layers from 0 to 1"),
        ({"windowed_layers": [0], "sliding_window": None}, "needs a sliding_window"),
        ({"windowed_layers": [True]}, r"windowed_layers=\[True\], which must be a list of layers"),
        ({"num_experts": [4]}, "num_experts="),
    ],
)
def test_unsupported_configs_are_rejected(changes: dict[str, Any], message: str) -> None:
    described = config_to_hf(OWN["qwen3 cannot express alibi positions"])
    with pytest.raises(UserError, match=message):
        config_from_hf({**described, **changes})
