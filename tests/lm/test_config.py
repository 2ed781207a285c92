from __future__ import annotations

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import LlamaConfig, Qwen3Config

from groundup.errors import UserError
from groundup.lm.config import ModelConfig, Rope
from groundup.lm.model import CausalLM
from groundup.train.batch import Batch


def test_own_shape_has_heads_of_64_and_multiples_of_64() -> None:
    config = ModelConfig.of(width=384, depth=6, vocab_size=4096, context=256)
    assert (config.head_dim, config.num_attention_heads) == (64, 6)
    assert config.num_attention_heads % config.num_key_value_heads == 0
    assert config.intermediate_size == 1024
    assert config.model_type == "qwen3" and config.tie_word_embeddings


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"heads": 6, "width": 256}, "heads=6 does not divide width=256; try 4 or 8"),
        ({"width": 250}, "width=250 is not a multiple of 64; try 256"),
        ({"vocab_size": 1000}, "vocab_size=1000 is not a multiple of 64; try 1024"),
        ({"depth": 0}, "depth=0 must be at least 1"),
        ({"heads": 4, "kv_heads": 3, "width": 256}, "num_key_value_heads=3 does not divide"),
    ],
)
def test_impossible_shapes_name_value_rule_and_remedy(
    changes: dict[str, int], message: str
) -> None:
    shape = {"width": 256, "depth": 2, "vocab_size": 512, "context": 128} | changes
    with pytest.raises(UserError, match=message):
        ModelConfig.of(**shape)


@pytest.mark.parametrize("tied", [True, False])
def test_hugging_face_spelling_round_trips(tied: bool) -> None:
    rope = Rope(theta=5e5, type="llama3", factor=8.0, original_max_position_embeddings=32)
    config = ModelConfig(
        320, 64, 128, 2, 4, 2, 16, rope=rope, tie_word_embeddings=tied, model_type="llama",
        attention_bias=True, mlp_bias=True, eos_token_ids=(2,),
    )  # fmt: skip
    assert ModelConfig.from_hf(config.to_hf()) == config


def test_transformers_reads_the_same_shape_from_our_config() -> None:
    config = ModelConfig.of(width=128, depth=3, vocab_size=512, context=256)
    theirs = Qwen3Config(**config.to_hf())
    for name in (
        "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "head_dim",
        "num_attention_heads", "num_key_value_heads", "max_position_embeddings", "rms_norm_eps",
        "tie_word_embeddings", "attention_bias", "bos_token_id", "pad_token_id",
    ):  # fmt: skip
        assert getattr(theirs, name) == getattr(config, name), name
    assert ModelConfig.from_hf(theirs.to_dict()).rope == config.rope


SCALINGS = [
    {"rope_type": "default"},
    {"rope_type": "linear", "factor": 4.0},
    {
        "rope_type": "llama3",
        "factor": 8,
        "low_freq_factor": 1,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 64,
    },
]


@pytest.mark.parametrize("scaling", SCALINGS, ids=lambda scaling: scaling["rope_type"])
def test_both_spellings_of_rope_are_read_alike(scaling: dict[str, float]) -> None:
    before = Rope.from_hf({"rope_theta": 1e5, "rope_scaling": scaling})
    now = Rope.from_hf({"rope_parameters": {"rope_theta": 1e5, **scaling}})
    assert before == now
    assert before.theta == 1e5 and before.type == scaling["rope_type"]
    # The oldest spelling says `type`.
    oldest = {"type": scaling["rope_type"], **scaling}
    del oldest["rope_type"]
    assert Rope.from_hf({"rope_theta": 1e5, "rope_scaling": oldest}) == now


def test_no_scaling_is_null_in_old_files() -> None:
    assert Rope.from_hf({"rope_theta": 1e6, "rope_scaling": None}) == Rope(theta=1e6)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"model_type": "gpt2"}, "model_type 'gpt2' is not supported"),
        ({}, "model_type None is not supported"),
        ({"model_type": "llama"}, "config.json lacks"),
        ({"model_type": "llama", "hidden_act": "gelu"}, "hidden_act 'gelu'"),
        ({"model_type": "qwen3", "use_sliding_window": True}, "use_sliding_window"),
        ({**LlamaConfig().to_dict(), "rope_parameters": {"rope_type": "yarn"}}, "'yarn'"),
    ],
)
def test_what_cannot_be_read_is_refused(config: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        ModelConfig.from_hf(config)


@pytest.mark.parametrize("kind", ["qwen3", "llama"])
@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("bias", [True, False])
def test_parameters_are_counted_as_the_model_has_them(kind: str, tied: bool, bias: bool) -> None:
    config = ModelConfig(
        320, 64, 128, 3, 4, 2, 24, model_type=kind, tie_word_embeddings=tied,
        attention_bias=bias, mlp_bias=bias,
    )  # type: ignore[arg-type]  # fmt: skip
    assert config.parameters == sum(p.numel() for p in CausalLM(config).parameters())


def test_flops_per_token_are_what_torch_counts(tiny_model) -> None:  # type: ignore[no-untyped-def]
    model, context = tiny_model(), 48
    batch = Batch.of(torch.arange(2 * context).reshape(2, context))
    with FlopCounterMode(display=False) as counter:
        model.logits(batch).sum().backward()
    assert counter.get_total_flops() == 2 * context * model.config.flops_per_token(context)
