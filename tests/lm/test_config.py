from __future__ import annotations

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from groundup.errors import UserError
from groundup.lm.config import ModelConfig
from groundup.lm.families import FAMILIES
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


@pytest.mark.parametrize("kind", FAMILIES)
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
