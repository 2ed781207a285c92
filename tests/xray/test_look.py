"""Patterns, logit lens and attribution against transformers, for three model families."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from numpy.testing import assert_allclose, assert_array_equal

import groundup
from groundup.adapters.attach import add_lora, merge
from groundup.adapters.quantization import quantize
from groundup.errors import UserError
from groundup.formats.folder import save_model
from groundup.lm.config import ModelConfig, Rope
from groundup.lm.model import CausalLM
from groundup.text.tokenizer import Tokenizer
from groundup.train.batch import Batch
from groundup.xray.heads import KINDS, head_scores, on_diagonal, repeated_sequence
from groundup.xray.look import XRay, text_ids, token_id, xray
from groundup.xray.trace import traced

TEXT = "The sea is wide, the sea is deep, and the ship"
GPT2: dict[str, Any] = {
    "model_type": "gpt2", "attention_bias": True, "mlp_bias": True, "hidden_act": "gelu_new",
    "num_key_value_heads": 4, "head_dim": 16, "rms_norm_eps": 1e-5,
}  # fmt: skip
SHAPES: dict[str, dict[str, Any]] = {
    "qwen3": {},
    "llama": {"model_type": "llama", "rope": Rope(type="linear", factor=4.0), "mlp_bias": True},
    "llama with biases": {
        "model_type": "llama", "attention_bias": True, "tie_word_embeddings": False
    },
    "gpt2": GPT2,
}  # fmt: skip


@pytest.fixture(params=SHAPES)
def both(  # type: ignore[no-untyped-def]
    request, tmp_path: Path, tiny_model, tokenizer: Tokenizer
) -> tuple[XRay, CausalLM, Any, torch.Tensor]:
    """Our folder inspected by us, and opened by transformers."""
    model = tiny_model(**SHAPES[request.param])
    save_model(tmp_path, model, tokenizer, card="")
    theirs = transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path, attn_implementation="eager"
    )
    seen = xray(str(tmp_path), TEXT)
    return seen, model, theirs, torch.as_tensor(seen.ids)[None]


def test_patterns_states_and_losses_equal_transformers(both) -> None:  # type: ignore[no-untyped-def]
    seen, _, theirs, ids = both
    states: list[torch.Tensor] = []
    last_norm = getattr(theirs.base_model, "norm", None) or theirs.base_model.ln_f
    last_norm.register_forward_pre_hook(lambda module, args: states.append(args[0]))
    with torch.no_grad():
        out = theirs(ids, output_attentions=True, output_hidden_states=True)
    assert_allclose(seen.attention, torch.stack(out.attentions)[:, 0].numpy(), atol=1e-5)
    assert_allclose(seen.logits, out.logits[0].numpy(), atol=1e-4)
    losses = torch.nn.functional.cross_entropy(out.logits[0, :-1], ids[0, 1:], reduction="none")
    assert np.isnan(seen.losses[0])
    assert_allclose(seen.losses[1:], losses.numpy(), atol=1e-4)
    # Their last hidden state has gone through the norm.
    streams = torch.stack([*out.hidden_states[:-1], states[0]])[:, 0]
    assert_allclose(seen.residual_norms, streams.norm(dim=-1).numpy(), rtol=1e-4)
    lens = theirs.lm_head(last_norm(streams)).log_softmax(-1).detach()
    expected = lens.topk(5, dim=-1)
    assert_allclose(seen.lens.probabilities, expected.values.exp().numpy(), atol=1e-5)
    assert (seen.lens.ids == expected.indices.numpy()).mean() > 0.99  # ties may turn
    answers = torch.as_tensor(seen.answers).expand(len(lens), -1)[..., None]
    assert_allclose(seen.lens.answer_logprobs, lens.gather(-1, answers)[..., 0], atol=1e-4)


def test_fewer_tokens_than_requested_are_all_listed(tiny_model: Any) -> None:
    assert xray(tiny_model(vocab_size=3), [0, 1]).lens.ids.shape[-1] == 3


def test_contributions_equal_those_of_the_parts_and_sum_to_the_logit(both) -> None:  # type: ignore[no-untyped-def]
    """Each head's vector is computed from transformers' weights, and its logit by their norm."""
    seen, model, theirs, ids = both
    config = model.config
    time, layers = ids.shape[1], config.num_hidden_layers
    heads, head_dim = config.num_attention_heads, config.head_dim
    fetched, mlps, states, first = [], [], [], []
    for layer in theirs.base_model.layers if hasattr(theirs.base_model, "layers") else ():
        layer.self_attn.o_proj.register_forward_pre_hook(lambda _, args: fetched.append(args[0]))
        layer.mlp.register_forward_hook(lambda _, args, out: mlps.append(out))
    for layer in getattr(theirs.base_model, "h", ()):
        layer.attn.c_proj.register_forward_pre_hook(lambda _, args: fetched.append(args[0]))
        layer.mlp.register_forward_hook(lambda _, args, out: mlps.append(out))
    last_norm = getattr(theirs.base_model, "norm", None) or theirs.base_model.ln_f
    last_norm.register_forward_pre_hook(lambda _, args: states.append(args[0]))
    with torch.no_grad():
        out = theirs(ids, output_hidden_states=True)
        first = out.hidden_states[0]

    x = states[0][0].double()
    layer_norm = isinstance(last_norm, torch.nn.LayerNorm)
    eps = last_norm.eps if layer_norm else last_norm.variance_epsilon
    spread = (x - x.mean(-1, keepdim=True) if layer_norm else x).square().mean(-1, keepdim=True)

    @torch.no_grad()
    def logit_of(part: torch.Tensor) -> np.ndarray:
        part = part.double()
        if layer_norm:
            part = part - part.mean(-1, keepdim=True)
        normed = part / (spread + eps).sqrt() * last_norm.weight.double()
        unembedding = theirs.lm_head.weight[torch.as_tensor(seen.answers)].double()
        found: np.ndarray = (normed * unembedding).sum(-1).numpy()
        return found

    found = seen.contributions
    assert_allclose(found.embedding, logit_of(first[0]), atol=1e-4)
    for i in range(layers):
        if config.model_type == "gpt2":
            matrix = theirs.base_model.h[i].attn.c_proj.weight
        else:
            matrix = theirs.base_model.layers[i].self_attn.o_proj.weight.T
        assert_allclose(found.mlps[i], logit_of(mlps[i][0]), atol=1e-4)
        for head in range(heads):
            part = slice(head * head_dim, (head + 1) * head_dim)
            written = fetched[i][0, :, part] @ matrix[part]
            assert_allclose(found.heads[i, head], logit_of(written), atol=1e-4)
    logits = out.logits[0, torch.arange(time), torch.as_tensor(seen.answers)].numpy()
    assert_allclose(found.sum, logits, atol=1e-4)
    if not config.output_bias and config.family.norm == "rms":
        assert_allclose(found.bias, 0, atol=1e-5)
    else:
        assert np.abs(found.bias).max() > 1e-3


def test_gradients_equal_those_of_backward(both) -> None:  # type: ignore[no-untyped-def]
    seen, model, theirs, ids = both
    theirs(ids, labels=ids).loss.backward()
    names = ("self_attn", "mlp") if config_has_layers(theirs) else ("attn", "mlp")
    norms = (
        ("input_layernorm", "post_attention_layernorm")
        if config_has_layers(theirs)
        else ("ln_1", "ln_2")
    )
    blocks = theirs.base_model.layers if config_has_layers(theirs) else theirs.base_model.h
    for layer, block in enumerate(blocks):
        for half in range(2):
            parts = (getattr(block, names[half]), getattr(block, norms[half]))
            squares = sum(float(p.grad.square().sum()) for part in parts for p in part.parameters())
            assert_allclose(seen.weight_gradients[layer, half], squares**0.5, rtol=1e-3)
    assert all(p.grad is None for p in model.parameters())
    assert (seen.residual_gradients[:, :-1] > 0).all()
    # No loss is measured after the last token.
    assert_allclose(seen.residual_gradients[-1, -1], 0, atol=1e-7)


def config_has_layers(theirs: Any) -> bool:
    return hasattr(theirs.base_model, "layers")


def test_an_ablated_head_writes_nothing(tiny_model) -> None:  # type: ignore[no-untyped-def]
    model, ids = tiny_model(), list(range(5, 25))
    whole, part = xray(model, ids), xray(model, ids, without=[(1, 3)])
    assert np.abs(part.contributions.heads[1, 3]).max() == 0
    assert np.abs(whole.contributions.heads[1, 3]).max() > 0
    assert_allclose(part.contributions.sum, part.logits[np.arange(20), part.answers], atol=1e-4)
    assert_allclose(part.contributions.heads.shape, (2, 4, 20))
    # The same head ablated in the weights.
    d = model.config.head_dim
    with torch.no_grad():
        model.model.layers[1].self_attn.o_proj.weight[:, 3 * d : 4 * d] = 0
    ablated = xray(model, ids)
    assert_allclose(part.losses[1:], ablated.losses[1:], atol=1e-5)
    assert part.loss != pytest.approx(whole.loss, abs=1e-6)


@pytest.mark.parametrize("use_dora", [False, True])
def test_an_adapter_counts_as_merged(tiny_model, use_dora: bool) -> None:  # type: ignore[no-untyped-def]
    model, ids = tiny_model(), list(range(5, 25))
    before = xray(model, ids).loss
    add_lora(model, rank=4, dropout=0.5, use_dora=use_dora)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(0.0, 0.05)
    beside = xray(model, ids, without=[(0, 2)])
    assert beside.loss != pytest.approx(before, abs=1e-3)
    # Only the adapter's weights learn, and gradients reach them.
    assert (beside.weight_gradients > 0).all()
    merged = xray(merge(model, reversible=False), ids, without=[(0, 2)])
    assert_allclose(beside.attention, merged.attention, atol=1e-5)
    assert_allclose(beside.contributions.heads, merged.contributions.heads, atol=1e-4)
    assert_allclose(beside.contributions.mlps, merged.contributions.mlps, atol=1e-4)
    assert (merged.weight_gradients[:, 0] > 0).all()


def test_contributions_of_4_bit_weights_sum_to_the_logit(tiny_model) -> None:  # type: ignore[no-untyped-def]
    model, ids = quantize(tiny_model(), "nf4"), list(range(5, 25))
    seen = xray(model, ids)
    logits = seen.logits[np.arange(20), seen.answers]
    assert_allclose(seen.contributions.sum, logits, atol=1e-4)


def test_bf16_is_close(tiny_model) -> None:  # type: ignore[no-untyped-def]
    model, ids = tiny_model(), list(range(5, 25))
    exact, rounded = xray(model, ids), xray(model.to(torch.bfloat16), ids)
    assert rounded.attention.dtype == np.float32
    # Eight bits of mantissa through two layers.
    assert_allclose(rounded.losses[1:], exact.losses[1:], atol=0.1)
    logits = rounded.logits[np.arange(20), rounded.answers]
    assert_allclose(rounded.contributions.sum, logits, atol=0.1)


def test_no_hook_remains_on_an_inspected_model(tiny_model) -> None:  # type: ignore[no-untyped-def]
    model = tiny_model().train()
    before = model.logits(Batch.of(torch.tensor([[3, 4, 5]])))
    model.set_gradient_checkpointing(True)
    xray(model, [3, 4, 5], without=[(0, 0)])
    with pytest.raises(RuntimeError), traced(model):
        raise RuntimeError
    hooked = [
        m for m in model.modules() if m._forward_hooks or m._forward_pre_hooks or m._backward_hooks
    ]
    assert hooked == []
    assert model.training and model.model.gradient_checkpointing
    assert all(p.grad is None for p in model.parameters())
    assert torch.equal(model.logits(Batch.of(torch.tensor([[3, 4, 5]]))), before)


def test_threads_look_at_one_model_one_after_the_other(tiny_model: Any) -> None:
    model = tiny_model()
    prompts = [list(range(3, 3 + length)) for length in (4, 5, 6, 7)] * 8
    alone = [xray(model, ids).loss for ids in prompts]
    with ThreadPoolExecutor(8) as threads:
        together = list(threads.map(lambda ids: xray(model, ids).loss, prompts))
    for one, other in zip(alone, together, strict=True):
        assert_array_equal(one, other)


def test_patterns_are_classified() -> None:
    time = 9
    eye = np.eye(time, dtype=np.float32)
    back = np.eye(time, k=-3, dtype=np.float32)
    attention = np.stack([eye, back])[None]
    assert_allclose(on_diagonal(attention, 0), [[1, 0]])
    assert_allclose(on_diagonal(attention, 3), [[0, 1]])
    # Queries may be the last positions only; none of them has a token ten positions before it.
    assert_allclose(on_diagonal(attention[:, :, -4:], 3), [[0, 1]])
    assert_allclose(on_diagonal(attention, 10), [[0, 0]])


def induction_model() -> CausalLM:
    """Two layers of GPT-2's, their weights set by hand: a previous-token and an induction head.

    One-hot tokens and positions. Head 0.0 finds the position before and copies its token into a
    space of its own; head 1.0 finds the place whose copied token is today's, and says its token.
    """
    vocab, context, width = 40, 64, 40 + 64 + 40
    config = ModelConfig(
        vocab_size=vocab, hidden_size=width, intermediate_size=8, num_hidden_layers=2,
        num_attention_heads=1, num_key_value_heads=1, head_dim=width, tie_word_embeddings=False,
        max_position_embeddings=context, bos_token_id=None, **{
            k: v for k, v in GPT2.items() if k not in ("num_key_value_heads", "head_dim")
        },
    )  # fmt: skip
    model = CausalLM(config)
    tokens, places = slice(0, vocab), slice(vocab, vocab + context)
    copied = slice(vocab + context, width)
    sharp = 200.0
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.fill_(1.0 if "norm" in name and name.endswith("weight") else 0.0)
        model.model.embed_tokens.weight[:, tokens] = torch.eye(vocab)
        model.model.embed_positions.weight[:, places] = torch.eye(context)
        first, second = (layer.self_attn for layer in model.model.layers)
        first.q_proj.weight[places, places] = sharp * torch.eye(context)
        first.k_proj.weight[places, places] = torch.eye(context).roll(1, 0)
        second.q_proj.weight[tokens, tokens] = sharp * torch.eye(vocab)
        second.k_proj.weight[tokens, copied] = torch.eye(vocab)
        for attention, goal in ((first, copied), (second, tokens)):
            attention.v_proj.weight[tokens, tokens] = torch.eye(vocab)
            attention.o_proj.weight[goal, tokens] = torch.eye(vocab)
        model.lm_head.weight[:, tokens] = torch.eye(vocab)
    return model


def test_heads_made_by_hand_are_found() -> None:
    model = induction_model()
    found = xray(model, list(range(30))).heads_found()
    assert [head for head, _ in found["previous token"]] == [(0, 0)]
    assert [head for head, _ in found["induction"]] == [(1, 0)]
    assert found["previous token"][0][1] > 0.9
    assert found["induction"][0][1] > 0.6  # a random block holds some tokens twice
    assert found["duplicate token"] == []
    without = xray(model, list(range(30)), without=[(0, 0)])
    assert without.heads_found()["induction"] == [], "it stands on the head before it"


@pytest.mark.parametrize("window", [8, 20])
def test_heads_are_found_within_a_window(window: int) -> None:
    """A block of fifty tokens would be beyond it."""
    whole = induction_model()
    model = CausalLM(replace(whole.config, sliding_window=window))
    model.load_state_dict(whole.state_dict())
    found = xray(model, list(range(30))).heads_found()
    assert [head for head, _ in found["previous token"]] == [(0, 0)]
    assert [head for head, _ in found["induction"]] == [(1, 0)]


@pytest.mark.parametrize("count", [1, 2, 3, 40])
@pytest.mark.parametrize("window", [None, 6])
def test_a_head_with_uniform_attention_has_no_kind(
    tiny_model, count: int, window: int | None
) -> None:  # type: ignore[no-untyped-def]
    model = tiny_model(sliding_window=window)
    with torch.no_grad():
        for block in model.blocks:
            block.self_attn.q_proj.weight.zero_()
    seen = xray(model, list(range(5, 5 + count)))
    assert_allclose(seen.attention[0, 0, -1, -1], 1 / min(count, window or count), atol=1e-6)
    assert not any(seen.heads_found().values())
    assert seen.head_scores.max() < 0.35


@pytest.mark.parametrize("context", [1, 2, 4, 8])
def test_a_short_context_has_no_kinds(tiny_model, tokenizer, context: int) -> None:  # type: ignore[no-untyped-def]
    seen = xray(tiny_model(max_position_embeddings=context), "The sea", tokenizer)
    assert np.isnan(seen.head_scores).all() and seen.head_scores.shape == (len(KINDS), 2, 4)
    assert not any(seen.heads_found().values())
    assert seen.context == context


def test_scores_are_reproducible_and_use_no_special_token(tiny_model) -> None:  # type: ignore[no-untyped-def]
    model = tiny_model()
    sequence, block = repeated_sequence(model, [0], frozenset({0, 1, 2}))
    assert block == 31 and sequence.shape == (4, 63)
    assert torch.equal(sequence[:, 1:32], sequence[:, 32:])
    assert int(sequence[:, 1:].min()) > 2
    one, other = head_scores(model), head_scores(model)
    assert one.shape == (len(KINDS), 2, 4)
    assert_allclose(one, other)
    assert_allclose(xray(model, [5, 6, 7]).head_scores, one)
    assert_allclose(xray(model, [5]).head_scores, one)


def test_a_text_is_read_as_in_generation(tmp_path: Path, tiny_model, tokenizer) -> None:  # type: ignore[no-untyped-def]
    model = tiny_model()
    seen = groundup.xray(model, TEXT, tokenizer)
    assert seen.ids[0] == tokenizer.end_of_text
    assert "".join(seen.tokens[1:]) == TEXT
    spoken = groundup.xray(model, "The sea", tokenizer, chat=True)
    assert "".join(spoken.tokens).endswith("<|im_start|>assistant\n")
    assert text_ids(model.config, tokenizer, "The sea", chat=True) == spoken.ids.tolist()
    short = groundup.xray(model, TEXT, tokenizer, most_tokens=5)
    assert len(short.ids) == 5 and short.cut == len(seen.ids) - 5
    assert_allclose(short.losses[1:], seen.losses[1:5], atol=1e-5)
    alone = groundup.xray(model, [7])
    assert np.isnan(alone.loss) and alone.attention.shape == (2, 4, 1, 1)
    half = xray(model, tokenizer.encode("é")[:1], tokenizer)
    assert half.tokens == ("\\xc3",)


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"text": []}, "empty"),
        ({"text": "no tokenizer"}, r"xray\(model, text, tokenizer\)"),
        ({"text": [3, 5000]}, "5000"),
        ({"text": [-1, 3]}, "-1 is below 0"),
        ({"text": [3, 4], "most_tokens": 0}, "most_tokens=0"),
        ({"text": [3, 4], "most_tokens": -3}, "most_tokens=-3"),
        ({"text": [3], "answer": 5000}, "answer=5000"),
        ({"text": [3], "without": [(2, 0)]}, r"2\.0 .* 1\.3"),
        ({"text": [3], "without": [(0, -1)]}, "0.-1"),
        ({"text": [3], "answer": "the"}, "answer='the' is not a token id"),
        ({"text": [3], "without": [1]}, r"without=\[1\] does not name heads; give pairs"),
        ({"text": [3], "without": "1.2"}, "without='1.2' does not name heads"),
        ({"text": [3], "without": 5}, "without=5 does not name heads"),
    ],
)
@pytest.mark.usefixtures("unchecked_types")
def test_uninspectable_inputs_are_reported(tiny_model, settings: Any, why: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(UserError, match=why):
        groundup.xray(tiny_model(), **settings)


def test_gradients_are_computed_within_no_grad(tiny_model) -> None:  # type: ignore[no-untyped-def]
    model = tiny_model()
    plain = groundup.xray(model, [3, 4, 5])
    with torch.inference_mode():
        found = groundup.xray(model, [3, 4, 5])
    assert np.array_equal(found.residual_gradients, plain.residual_gradients)


def test_an_id_is_an_integer() -> None:
    assert [token_id(one) for one in (5, np.int64(5), torch.tensor(5))] == [5, 5, 5]
    for one in (1.5, True, [1, 2], np.float32(5), None):
        with pytest.raises(UserError, match="is not a token id"):
            token_id(one)


def test_another_answer_may_be_given(tiny_model) -> None:  # type: ignore[no-untyped-def]
    model, ids = tiny_model(), [5, 6, 7]
    seen = xray(model, ids, answer=9)
    assert seen.answers.tolist() == [6, 7, 9]
    assert_allclose(seen.contributions.sum[-1], seen.logits[-1, 9], atol=1e-4)
    expected = torch.as_tensor(seen.logits[-1]).log_softmax(-1)[9]
    assert_allclose(seen.lens.answer_logprobs[-1, -1], expected, atol=1e-4)
