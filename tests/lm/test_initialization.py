"""Weights before the first step: heads that attend to earlier tokens, and their benefit."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from groundup.errors import UserError
from groundup.lm.config import ModelConfig
from groundup.lm.initialization import can_look_back
from groundup.lm.model import CausalLM
from groundup.lm.positions import apply_rope
from groundup.pretrain.config import PretrainConfig
from groundup.pretrain.stage import previous_token_heads
from groundup.train.batch import Batch


def of(width: int, depth: int = 2, **chosen: Any) -> ModelConfig:
    return ModelConfig.of(width=width, depth=depth, vocab_size=64, context=96, **chosen)


def first_attention(model: CausalLM, ids: Tensor) -> Tensor:
    """Attention weights of the first layer, (heads, time, time), by the equation."""
    decoder, attend = model.model, model.blocks[0].self_attn
    places = torch.arange(ids.shape[1])[None]
    x = model.blocks[0].input_layernorm(decoder.embed(ids, places))
    sides = []
    for project, norm in ((attend.q_proj, attend.q_norm), (attend.k_proj, attend.k_norm)):
        heads = project(x).unflatten(-1, (-1, attend.head_dim)).transpose(1, 2)
        sides.append(apply_rope(norm(heads), places)[0])
    query, key = sides
    key = key.repeat_interleave(len(query) // len(key), dim=0)
    scores = query @ key.mT / math.sqrt(attend.head_dim)
    hidden = ~torch.ones_like(scores, dtype=torch.bool).tril()
    return scores.masked_fill(hidden, -torch.inf).softmax(-1)


@pytest.mark.parametrize(
    ("width", "chosen", "looking"),
    [
        (192, {}, 2),
        (192, {"kv_heads": 3}, 3),
        (128, {"heads": 4, "kv_heads": 2}, 3),
        (384, {}, 5),
        (256, {"heads": 16, "kv_heads": 1}, 1),
    ],
)
def test_heads_attend_to_the_given_distance(
    width: int, chosen: dict[str, int], looking: int
) -> None:
    model = CausalLM(of(width, **chosen))
    model.initialize(0, previous_token_heads=looking)
    ids = torch.randint(64, (1, 60), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        weights = first_attention(model, ids)
    for head in range(len(weights)):
        at_its_place = weights[head].diagonal(-(head + 1)).mean()
        if head < looking:
            assert at_its_place > 0.75, head
        else:
            assert at_its_place < 0.5, head


def test_only_previous_token_heads_are_not_random() -> None:
    """All else is random: the other heads, the other layers, and the initial predictions."""
    model = CausalLM(of(128, heads=4, kv_heads=2))
    model.initialize(0, previous_token_heads=2)
    last = model.blocks[1].self_attn
    assert torch.equal(last.q_norm.weight, torch.ones(32))
    for name, parameter in model.named_parameters():
        if "norm" in name or name.startswith("model.layers.0.self_attn"):
            continue
        width = 1.0 if "embed_" in name else math.sqrt(parameter.shape[1])
        noise = parameter - parameter.mean(0) if "embed_" in name else parameter * width
        wanted = 0.02 if "embed_" in name else 1.0
        assert noise.std().item() == pytest.approx(wanted, rel=0.05), name
    ids = torch.randint(64, (8, 60), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        log_probs = model.logits(Batch.of(ids)).log_softmax(-1)
    # A component shared by all embeddings adds the same to all logits.
    assert log_probs.exp().mean((0, 1)).max() < 3 / 64


def copying_loss(looking: int, steps: int) -> float:
    """The loss on repeated tokens, in nats, after `steps` steps on blocks of random tokens."""
    model = CausalLM(of(128, heads=4))
    model.initialize(0, previous_token_heads=looking)
    generator = torch.Generator().manual_seed(1)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.002, betas=(0.9, 0.95))
    losses = []
    for _ in range(steps):
        rows, known = [], torch.zeros(16, 64, dtype=torch.bool)
        for row in range(16):
            length = int(torch.randint(6, 17, (1,), generator=generator))
            block = torch.randint(64, (length,), generator=generator)
            rows.append(block.repeat(65 // length + 1)[:65])
            known[row, length:] = True
        ids = torch.stack(rows)
        logits = model.logits(Batch.of(ids[:, :-1]))
        loss = functional.cross_entropy(logits.mT, ids[:, 1:], reduction="none")
        loss.mean().backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.detach()[known].mean().item())
    return sum(losses[-10:]) / 10


@pytest.mark.long
def test_copying_is_learned_sooner() -> None:
    """Chance is ln 64 = 4.16 nats; knowing which tokens a block has gives about 2.4."""
    assert copying_loss(2, 250) < copying_loss(0, 250) - 0.3


def test_models_that_cannot_have_these_heads_have_none_by_default(tmp_path: Path) -> None:
    def looking(shape: ModelConfig, asked: int | None = None) -> int:
        config = PretrainConfig(
            data=tmp_path, tokenizer=tmp_path, previous_token_heads=asked, out=tmp_path
        )
        return previous_token_heads(config, shape)

    assert [looking(of(64 * heads)) for heads in (1, 2, 3, 6)] == [0, 1, 2, 2]
    assert [looking(of(192), asked) for asked in (0, 1, 3)] == [0, 1, 3]
    narrow = of(64, heads=16)
    assert not can_look_back(narrow) and looking(narrow) == 0
    with pytest.raises(UserError, match="needs heads of 8 features, but they have 4"):
        looking(narrow, 1)
    with pytest.raises(UserError, match="previous-token-heads=4 must be at most the 3 heads"):
        looking(of(192), 4)
    assert looking(of(192, do_layer_norm_before=False)) == 0
    assert looking(of(192, position_embedding_type="alibi")) == 0
    for chosen in ({"norm": "after"}, {"position": "alibi"}, {"arch": "lstm"}):
        with pytest.raises(ValueError, match="previous_token_heads=1 has no meaning with"):
            PretrainConfig(
                data=tmp_path, tokenizer=tmp_path, out=tmp_path, previous_token_heads=1, **chosen
            )
        none = PretrainConfig(
            data=tmp_path, tokenizer=tmp_path, out=tmp_path, previous_token_heads=0, **chosen
        )
        assert none.previous_token_heads == 0
    lstm = ModelConfig.recurrent("lstm", width=64, depth=1, vocab_size=64, context=32)
    assert looking(lstm) == 0
    with pytest.raises(ValueError, match="look back require RoPE"):
        CausalLM(lstm).initialize(0, previous_token_heads=1)
