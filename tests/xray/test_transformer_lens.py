"""TransformerLens opens our folders with the same results, for three model families."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from transformer_lens.head_detector import detect_head
from transformer_lens.model_bridge import TransformerBridge

from groundup.formats.folder import save_model
from groundup.text.tokenizer import Tokenizer
from groundup.xray.heads import on_diagonal
from groundup.xray.look import xray

TEXT = "The sea is wide, the sea is deep, and the ship"
SHAPES: dict[str, dict[str, Any]] = {
    "qwen3": {},
    "llama": {"model_type": "llama"},
    "gpt2": {
        "model_type": "gpt2", "attention_bias": True, "mlp_bias": True, "hidden_act": "gelu_new",
        "num_key_value_heads": 4, "head_dim": 16, "rms_norm_eps": 1e-5,
    },
}  # fmt: skip


@pytest.fixture(params=SHAPES)
def both(  # type: ignore[no-untyped-def]
    request, tmp_path: Path, tiny_model, tokenizer: Tokenizer
) -> tuple[Path, Any]:
    """Our folder, and TransformerLens's model of it."""
    save_model(tmp_path, tiny_model(**SHAPES[request.param]), tokenizer, card="")
    theirs = TransformerBridge.boot_transformers(str(tmp_path), device="cpu")
    return tmp_path, theirs


@torch.no_grad()
def test_patterns_lens_and_attribution_equal_transformer_lens(both) -> None:  # type: ignore[no-untyped-def]
    folder, theirs = both
    seen = xray(folder, TEXT)
    layers, heads, time = seen.attention.shape[:3]
    answers = torch.as_tensor(seen.answers)
    logits, cache = theirs.run_with_cache(torch.as_tensor(seen.ids)[None])
    assert_allclose(seen.logits, logits[0], atol=1e-4)
    patterns = torch.stack([cache["pattern", layer][0] for layer in range(layers)])
    assert_allclose(seen.attention, patterns, atol=1e-4)

    streams = cache.accumulated_resid(layer=-1, apply_ln=False)
    assert_allclose(seen.residual_norms, streams[:, 0].norm(dim=-1), rtol=1e-4)
    lens = theirs.unembed(theirs.ln_final(streams[:, 0])).log_softmax(-1)
    probabilities = lens.exp().topk(5, dim=-1).values
    assert_allclose(seen.lens.probabilities, probabilities, atol=1e-4)
    chosen = lens.gather(-1, answers.expand(layers + 1, -1)[..., None])[..., 0]
    assert_allclose(seen.lens.answer_logprobs, chosen, atol=1e-4)

    # They take the last norm's weight into the head first, and keep its divisor in the cache.
    theirs.process_weights(
        fold_ln=True,
        center_writing_weights=False,
        center_unembed=False,
        fold_value_biases=False,
    )
    _, cache = theirs.run_with_cache(torch.as_tensor(seen.ids)[None])

    def attributed(parts: torch.Tensor) -> np.ndarray:
        found: np.ndarray = cache.logit_attrs(parts, answers[None])[:, 0].numpy()
        return found

    each_head = attributed(cache.stack_head_results(layer=-1))
    assert_allclose(seen.contributions.heads, each_head.reshape(layers, heads, time), atol=1e-4)
    parts, labels = cache.decompose_resid(layer=-1, mode="mlp", return_labels=True)
    by_label = dict(zip(labels, attributed(parts), strict=True))
    mlps = np.stack([by_label[f"{layer}_mlp_out"] for layer in range(layers)])
    assert_allclose(seen.contributions.mlps, mlps, atol=1e-4)
    opening = by_label["embed"] + by_label.get("pos_embed", 0)
    assert_allclose(seen.contributions.embedding, opening, atol=1e-4)


@torch.no_grad()
def test_the_previous_token_detector_agrees(both) -> None:  # type: ignore[no-untyped-def]
    """Theirs divides by all queries, including the first, which has no previous token."""
    folder, theirs = both
    ids = theirs.to_tokens(TEXT)[0].tolist()
    expected = detect_head(theirs, TEXT, "previous_token_head")
    before = on_diagonal(xray(folder, ids).attention, 1) * (len(ids) - 1) / len(ids)
    assert_allclose(before, expected, atol=1e-4)
