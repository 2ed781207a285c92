from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.testing import assert_close
from transformers import LlamaConfig
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding, apply_rotary_pos_emb

from groundup.errors import UserError
from groundup.formats.hf_config import rope_from_hf
from groundup.lm.attention import as_bias, document_mask
from groundup.lm.config import POSITION_EMBEDDINGS, Rope
from groundup.lm.positions import (
    alibi_bias,
    alibi_slopes,
    apply_rope,
    inverse_frequencies,
    rotate,
    rotation,
    sinusoidal_embedding,
)
from groundup.train.batch import Batch

CPU = torch.device("cpu")
SCALINGS: list[dict[str, Any]] = [
    {"rope_type": "default"},
    {"rope_type": "linear", "factor": 4.0},
    {
        "rope_type": "llama3",
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 64,
    },
    {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64},
    {"rope_type": "yarn", "factor": 8.0, "original_max_position_embeddings": 32, "beta_fast": 8.0,
     "beta_slow": 2.0, "truncate": False, "mscale": 1.2, "mscale_all_dim": 0.8},
    {"rope_type": "yarn", "factor": 2.0, "original_max_position_embeddings": 64,
     "attention_factor": 1.5},
]  # fmt: skip


@pytest.mark.parametrize("theta", [1e4, 5e5])
@pytest.mark.parametrize("scaling", SCALINGS, ids=lambda scaling: scaling["rope_type"])
def test_rotation_equals_transformers(theta: float, scaling: dict[str, Any]) -> None:
    parameters = {"rope_theta": theta, **scaling}
    config = LlamaConfig(
        hidden_size=128,
        num_attention_heads=4,
        max_position_embeddings=512,
        rope_parameters=parameters,
    )
    theirs = LlamaRotaryEmbedding(config)
    x, positions = torch.randn(2, 4, 9, 32), torch.randint(512, (2, 9))
    rope = rope_from_hf({"rope_parameters": parameters})
    frequencies = inverse_frequencies(rope, 32, CPU)
    assert_close(frequencies, theirs.inv_freq, rtol=1e-6, atol=0)
    cos, sin = theirs(x, positions)
    ours = rotate(x, rotation(frequencies, positions, x.dtype, rope.attention_factor))
    # The last bit of a frequency, five hundred positions on.
    assert_close(ours, apply_rotary_pos_emb(x, x, cos, sin)[0], rtol=1e-5, atol=1e-4)


def test_scores_depend_on_distance_only() -> None:
    frequencies = inverse_frequencies(Rope(), 16, CPU)
    query, key = torch.randn(1, 1, 1, 16), torch.randn(1, 1, 1, 16)

    def score(at: int, seen_from: int) -> torch.Tensor:
        turned_query = rotate(
            query, rotation(frequencies, torch.tensor([[seen_from]]), query.dtype)
        )
        turned_key = rotate(key, rotation(frequencies, torch.tensor([[at]]), key.dtype))
        return (turned_query * turned_key).sum()

    assert_close(score(3, 10), score(103, 110), rtol=1e-4, atol=1e-4)
    assert not torch.isclose(score(3, 10), score(3, 11), rtol=1e-3)


def test_angles_of_far_positions_are_float32_under_bf16() -> None:
    frequencies = inverse_frequencies(Rope(), 16, CPU)
    positions = torch.tensor([[1001]])
    cos, _ = rotation(frequencies, positions, torch.bfloat16)
    exact, _ = rotation(frequencies, positions, torch.float32)
    assert cos.dtype == torch.bfloat16
    assert_close(cos.float(), exact, atol=4e-3, rtol=0)


def test_both_pairings_rotate_complex_numbers() -> None:
    """The paper's form (section 3.4.2): a pair is a number a + ib, multiplied by e^(ip theta)."""
    frequencies = inverse_frequencies(Rope(), 16, CPU)
    x, positions = torch.randn(2, 3, 5, 16, dtype=torch.float64), torch.randint(99, (2, 5))
    turn = rotation(frequencies.double(), positions, torch.float64)
    angles = (positions[..., None].float() * frequencies.double()).double()[:, None]
    by = torch.polar(torch.ones_like(angles), angles)
    neighbors = torch.view_as_real(torch.view_as_complex(x.unflatten(-1, (8, 2))) * by)
    found = apply_rope(x, positions, pairing="interleaved")
    assert_close(found, neighbors.flatten(-2), rtol=1e-4, atol=1e-4)
    halves = torch.complex(x[..., :8], x[..., 8:]) * by
    assert_close(rotate(x, turn), torch.cat((halves.real, halves.imag), -1))


def test_pairings_differ_only_in_the_order_of_features() -> None:
    positions = torch.arange(6)[None]
    turn = rotation(inverse_frequencies(Rope(), 16, CPU), positions, torch.float32)
    x = torch.randn(1, 2, 6, 16)
    order = torch.arange(16).view(8, 2).T.flatten()  # evens, then odds
    neighbors = apply_rope(x, positions, pairing="interleaved")
    assert torch.equal(neighbors[..., order], rotate(x[..., order], turn))


# RoPE by itself.


def as_complex(x: torch.Tensor, positions: torch.Tensor, theta: float) -> torch.Tensor:
    """Adjacent pairs as complex numbers, rotated: the paper's equation 34 in float64."""
    half = x.shape[-1] // 2
    angles = positions[..., None].double() * theta ** (-torch.arange(half).double() / half)
    pairs = torch.view_as_complex(x.double().unflatten(-1, (half, 2)).contiguous())
    turned = pairs * torch.polar(torch.ones_like(angles), angles)
    return torch.view_as_real(turned).flatten(-2).float()


@pytest.mark.parametrize("leading", [(), (3,), (2, 4), (2, 3, 4)])
@pytest.mark.parametrize("theta", [100.0, 10_000.0, 1e6])
def test_rope_of_single_tensors_in_both_layouts(leading: tuple[int, ...], theta: float) -> None:
    x, positions = torch.randn(*leading, 6, 16), torch.tensor([0, 1, 2, 30, 31, 500])
    wanted = as_complex(x, positions, theta)
    found = apply_rope(x, positions, Rope(theta=theta), "interleaved")
    assert_close(found, wanted, rtol=1e-4, atol=1e-4)
    order = torch.arange(16).view(8, 2).T.flatten()  # evens, then odds
    halves = apply_rope(x[..., order], positions, Rope(theta=theta), "halves")
    assert_close(halves, wanted[..., order], rtol=1e-4, atol=1e-4)


def test_positions_of_rows_apply_to_all_heads() -> None:
    x, positions = torch.randn(2, 4, 5, 16), torch.randint(99, (2, 5))
    for pairing in ("halves", "interleaved"):
        found = apply_rope(x, positions, pairing=pairing)  # type: ignore[arg-type]
        for row in range(2):
            for head in range(4):
                alone = apply_rope(x[row, head], positions[row], pairing=pairing)  # type: ignore[arg-type]
                assert_close(found[row, head], alone)
    # All dimensions of x but the last: each head has its own.
    own = torch.randint(99, (2, 4, 5))
    assert_close(apply_rope(x, own)[1, 2], apply_rope(x[1, 2], own[1, 2]))
    # One row of positions for all rows, and as many heads as rows.
    square = torch.randn(4, 4, 5, 16)
    assert_close(apply_rope(square, positions[:1])[3, 1], apply_rope(square[3, 1], positions[0]))


@pytest.mark.parametrize("scaling", SCALINGS, ids=lambda scaling: scaling["rope_type"])
def test_apply_rope_equals_transformers_with_scaling(scaling: dict[str, Any]) -> None:
    parameters = {"rope_theta": 1e4, **scaling}
    config = LlamaConfig(
        hidden_size=128, num_attention_heads=4, max_position_embeddings=512,
        rope_parameters=parameters,
    )  # fmt: skip
    x, positions = torch.randn(2, 4, 9, 32), torch.randint(512, (2, 9))
    cos, sin = LlamaRotaryEmbedding(config)(x, positions)
    ours = apply_rope(x, positions, rope_from_hf({"rope_parameters": parameters}))
    assert_close(ours, apply_rotary_pos_emb(x, x, cos, sin)[0], rtol=1e-5, atol=1e-4)


def test_rejects_tensors_that_cannot_be_rotated() -> None:
    with pytest.raises(ValueError, match="head_dim=7 is odd"):
        apply_rope(torch.randn(3, 7), torch.arange(3))
    with pytest.raises((ValueError, TypeError), match="thirds"):
        apply_rope(torch.randn(3, 8), torch.arange(3), pairing="thirds")  # type: ignore[arg-type]


@pytest.mark.usefixtures("unchecked_types")
def test_the_pairing_has_its_old_keyword() -> None:
    x, positions = torch.randn(3, 8), torch.arange(3)
    with pytest.warns(DeprecationWarning, match="pairing='neighbours' is now 'interleaved'"):
        found = apply_rope(x, positions, pairing="neighbours")  # type: ignore[arg-type]
    assert torch.equal(found, apply_rope(x, positions, pairing="interleaved"))


# The others.


@pytest.mark.parametrize("width", [16, 64])
def test_sinusoids_equal_the_papers(width: int) -> None:
    from transformers.models.distilbert.modeling_distilbert import create_sinusoidal_embeddings

    theirs = torch.empty(50, width)
    create_sinusoidal_embeddings(50, width, theirs)
    ours = sinusoidal_embedding(torch.arange(50), width, torch.float32)
    assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
    far = sinusoidal_embedding(torch.tensor([[7], [49]]), width, torch.float32)
    assert_close(far[:, 0], ours[[7, 49]])


def test_frequencies_have_values_under_the_meta_device() -> None:
    with torch.device("meta"):
        found = inverse_frequencies(Rope(theta=123.0), 16, CPU)
    assert found.device == CPU and bool(found.isfinite().all())


def test_an_odd_width_ends_with_a_sine() -> None:
    odd = sinusoidal_embedding(torch.arange(9), 5, torch.float32)
    angle = torch.arange(9) / 10_000 ** (4 / 5)
    assert odd.shape == (9, 5)
    assert_close(odd[:, 4], angle.sin())


@pytest.mark.parametrize("heads", [1, 2, 3, 4, 6, 8, 12, 16, 20])
def test_slopes_equal_transformers(heads: int) -> None:
    from transformers.models.bloom.modeling_bloom import build_alibi_tensor

    # Theirs is slope * position, which a softmax cannot distinguish from slope * (position -
    # query's).
    theirs = build_alibi_tensor(torch.ones(1, 2), heads, torch.float32)[:, 0, 1]
    assert_close(alibi_slopes(heads), theirs)


def test_alibi_lowers_scores_by_distance() -> None:
    """The paper's figure 3, by hand: heads of slopes 1/16 and 1/256."""
    positions = torch.tensor([[0, 1, 2]])
    bias = as_bias(document_mask(torch.zeros(1, 3, dtype=torch.int64)), torch.float32)
    found = alibi_bias(bias, positions, positions, 2)[0]
    far = -torch.inf
    expected = torch.tensor([[0, far, far], [-1, 0, far], [-2, -1, 0]])
    assert_close(found[0], expected / 16)
    assert_close(found[1], expected / 256)


def test_only_models_with_positions_depend_on_order(tiny_model) -> None:  # type: ignore[no-untyped-def]
    """Without positions, one layer sees earlier tokens as a set."""
    ids = torch.tensor([[3, 5, 7, 9, 11, 13, 2], [13, 9, 3, 5, 11, 7, 2]])
    for kind in POSITION_EMBEDDINGS:
        model = tiny_model(num_hidden_layers=1, position_embedding_type=kind)
        first, second = model.logits(Batch.of(ids))[:, -1]
        same = torch.allclose(first, second, rtol=1e-4, atol=1e-4)
        assert same == (kind == "none"), kind


def test_rope_and_alibi_depend_on_distance_only(tiny_model) -> None:  # type: ignore[no-untyped-def]
    ids = torch.randint(320, (1, 9))
    plain = Batch.of(ids)
    later = Batch(ids, ids, plain.weights, plain.position_ids + 30, plain.segment_ids)
    for kind in POSITION_EMBEDDINGS:
        model = tiny_model(position_embedding_type=kind)
        found, moved = model.logits(plain), model.logits(later)
        same = torch.allclose(found, moved, rtol=1e-3, atol=1e-3)
        assert same == (kind in ("rope", "alibi", "none")), kind


def test_learned_positions_end_at_the_trained_length(tiny_model) -> None:  # type: ignore[no-untyped-def]
    ids = torch.randint(320, (1, 65))
    for kind in POSITION_EMBEDDINGS:
        model = tiny_model(position_embedding_type=kind)
        if kind == "learned":
            with pytest.raises(UserError, match="position 64 is out of range"):
                model(Batch.of(ids))
        else:
            assert model(Batch.of(ids)).isfinite().all()
