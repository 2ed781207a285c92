"""A whole model with kernels is as accurate as PyTorch's operations, compared with float32."""

from __future__ import annotations

from collections.abc import Callable
from statistics import mean
from typing import Any

import pytest
import torch
from tests.kernels.conftest import HOOKS, error, normal, number, within
from torch import nn
from torch.nn.modules import module as every_module

from groundup.adapters.attach import add_lora
from groundup.adapters.quantization import quantize
from groundup.kernels.library import Kernels, plain
from groundup.lm.model import CausalLM, RMSNorm
from groundup.train.batch import Batch
from groundup.train.loss import next_token_loss
from groundup.train.optim import Optimizer, Rates

TinyModel = Callable[..., CausalLM]

SIZES = {"head_dim": 32, "intermediate_size": 96}
SHAPES: dict[str, dict[str, Any]] = {
    "qwen3": {},
    "qwen2": {"model_type": "qwen2", "attention_bias": True},
    "llama": {"model_type": "llama", "tie_word_embeddings": False},
    "llama with biases": {"model_type": "llama", "attention_bias": True, "mlp_bias": True},
    "window": {"model_type": "mistral", "sliding_window": 5},
    "window in some layers": {"sliding_window": 5, "windowed_layers": (1,)},
    "gpt2": {
        "model_type": "gpt2",
        "hidden_act": "gelu_new",
        "num_key_value_heads": 4,
        "attention_bias": True,
        "mlp_bias": True,
    },
    "gelu": {"hidden_act": "gelu_pytorch_tanh"},
    "odd sizes": {"intermediate_size": 97, "vocab_size": 323, "head_dim": 24},
}


def packed(rows: int, *lengths: int) -> Batch:
    """Rows of several documents with random tokens, some of them not trained on."""
    generator = torch.manual_seed(0)
    time = sum(lengths)
    ids = torch.randint(320, (rows, time + 1), generator=generator)
    positions = torch.cat([torch.arange(length) for length in lengths]).expand(rows, time)
    numbers = torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths))
    segments = numbers + len(lengths) * torch.arange(rows)[:, None]
    weights = (torch.rand(rows, time, generator=generator) < 0.8).float()
    return Batch(ids[:, :-1], ids[:, 1:].contiguous(), weights, positions.contiguous(), segments)


def gradients(model: CausalLM, batch: Batch) -> tuple[float, dict[str, torch.Tensor]]:
    """Loss and gradients as in `fit`: those of a bfloat16 model in the optimizer's sums."""
    optimizer = Optimizer(model, Rates(0.0, 0.0, 0.0), muon=False)
    for _ in range(2):
        loss = next_token_loss(model, batch)
        (loss.total / loss.weight).backward()  # type: ignore[no-untyped-call]
    found = {n: m.grad for n, m in optimizer.masters.items() if m.grad is not None}
    optimizer.release()
    for parameter in model.parameters():
        parameter.grad = None
    return float(loss.total.detach()), {name: grad.clone() for name, grad in found.items()}


def compare(model: CausalLM, *batches: Batch) -> None:
    """The kernels' loss and gradients are about as far from the truth as the plain path's.

    Kernels of float32 are equal to PyTorch's float32 but for the last bits. In the mean over
    `batches`: of a single one chance decides how far either is.
    """
    own, plains = dict[str, list[float]](), dict[str, list[float]]()
    for batch in batches:
        model.to(number())
        loss, found = gradients(model, batch)
        with plain():
            _, rounded = gradients(model, batch)
            model.float()
            true_loss, true = gradients(model, batch)
        assert loss == pytest.approx(true_loss, rel=within(0.004))
        assert found.keys() == true.keys() == rounded.keys()
        same = all(torch.equal(found[name], rounded[name]) for name in found)
        assert not same, "computed by the same words, nothing is compared"
        # Some are exactly zero, such as that of a key's bias, and consist of rounding errors.
        largest = max(float(gradient.norm()) for gradient in true.values())
        for name, gradient in true.items():
            if float(gradient.norm()) >= 1e-4 * largest:
                own.setdefault(name, []).append(error(found[name], gradient))
                plains.setdefault(name, []).append(error(rounded[name], gradient))
    for name, errors in own.items():
        assert mean(errors) < 1.5 * mean(plains[name]) + within(0.002), (name, errors, plains[name])


@pytest.mark.every(2)
@pytest.mark.parametrize("shape", SHAPES)
def test_loss_and_gradients(kernels: Kernels, tiny_model: TinyModel, shape: str) -> None:
    model = tiny_model(**{**SIZES, **SHAPES[shape]})
    compare(model, packed(3, 5, 31, 1, 13), packed(3, 40), packed(3, 20, 30), packed(2, 64))


def test_checkpointed_blocks_give_the_same_bits(kernels: Kernels, tiny_model: TinyModel) -> None:
    model, batch = tiny_model(**SIZES).to(number()), packed(2, 20, 17)
    _, once = gradients(model, batch)
    model.set_gradient_checkpointing(True)
    _, twice = gradients(model, batch)
    assert all(torch.equal(once[name], twice[name]) for name in once)


def test_the_default_dtype_changes_no_bit(
    kernels: Kernels, tiny_model: TinyModel, another_default_dtype: Callable[[], None]
) -> None:
    model, batch = tiny_model(**SIZES).to(number()), packed(2, 20, 17)
    loss, found = gradients(model, batch)
    another_default_dtype()
    again, twice = gradients(model, batch)
    assert again == loss
    assert all(torch.equal(found[name], twice[name]) for name in found)


@pytest.mark.parametrize("base", ["plain", "nf4", "with biases"])
@pytest.mark.parametrize("options", [{}, {"use_dora": True}, {"targets": ["q_proj", "up_proj"]}])
def test_an_adapter_on_frozen_weights(
    kernels: Kernels, tiny_model: TinyModel, base: str, options: dict[str, Any]
) -> None:
    model = tiny_model(**SIZES, **SHAPES["qwen2" if base == "with biases" else "qwen3"])
    if base == "nf4":
        quantize(model, "nf4")
    add_lora(model, rank=4, alpha=8.0, seed=0, **options)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if ".lora_B." in name:
                parameter.normal_(0, 0.1, generator=torch.manual_seed(len(name)))
    compare(model, packed(2, 9, 30))


@pytest.mark.parametrize("hook", HOOKS)
@pytest.mark.parametrize("norm", ["post_attention_layernorm", "self_attn.q_norm"])
def test_a_hook_on_a_norm_is_called(
    kernels: Kernels, tiny_model: TinyModel, norm: str, hook: str
) -> None:
    model = tiny_model(**SIZES).to(number())
    module = model.model.get_submodule(f"layers.0.{norm}")
    heard = list[bool]()
    getattr(module, f"register_{hook}_hook")(lambda *_: heard.append(True))
    gradients(model, packed(2, 9, 30))
    assert len(heard) == 2, "once in each pass"


# Token ids have no gradient.
@pytest.mark.filterwarnings("ignore:Full backward hook is firing")
@pytest.mark.parametrize("hook", HOOKS)
def test_a_global_hook_gets_each_module(kernels: Kernels, tiny_model: TinyModel, hook: str) -> None:
    model, batch = tiny_model(**SIZES).to(number()), packed(2, 9, 30)

    def heard() -> list[nn.Module]:
        found = list[nn.Module]()
        listen = getattr(every_module, f"register_module_{hook}_hook")
        handle = listen(lambda module, *_: found.append(module))
        gradients(model, batch)
        handle.remove()
        return found

    ours = heard()
    with plain():
        assert ours == heard()


def randomized(model: CausalLM) -> CausalLM:
    """In new models, the blocks add nothing."""
    with torch.no_grad():
        for i, parameter in enumerate(model.parameters()):
            if parameter.ndim == 2:
                parameter.copy_(normal(i, *parameter.shape, scale=parameter.shape[1] ** -0.5))
    return model


class Tripled(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.mul(self.inner(x), 3)


class TripledNorm(RMSNorm):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x) * 3


def tripled(model: CausalLM, name: str, how: str) -> None:
    """Make a layer triple its output, in one of the possible ways."""
    module = model.get_submodule(name)
    if how == "subclass":
        module.__class__ = TripledNorm
    elif how == "wrapper":
        model.set_submodule(name, Tripled(module))
    else:
        before = module.forward
        module.forward = lambda x: before(x) * 3


@pytest.mark.parametrize(
    ("how", "name"),
    [
        *(("forward", f"self_attn.{name}") for name in ("v_proj", "o_proj", "q_norm")),
        *(("forward", name) for name in ("mlp.down_proj", "post_attention_layernorm")),
        *(("subclass", name) for name in ("self_attn.q_norm", "post_attention_layernorm")),
        ("wrapper", "self_attn.q_norm"),
    ],
)
def test_a_changed_layer_is_computed_as_changed(
    kernels: Kernels, tiny_model: TinyModel, name: str, how: str
) -> None:
    model, batch = randomized(tiny_model(**SIZES)).to(number()), packed(2, 9, 30)
    before = model(batch)
    tripled(model, f"model.layers.1.{name}", how)
    after = model(batch)
    with plain():
        expected = model(batch)
    assert error(after, expected) < within(0.03)
    assert error(after, before) > 0.1


@pytest.mark.parametrize("kind", [nn.Linear, RMSNorm])
def test_a_replaced_forward_of_a_class_is_called(
    kernels: Kernels,
    tiny_model: TinyModel,
    monkeypatch: pytest.MonkeyPatch,
    kind: type[nn.Module],
) -> None:
    model, batch = randomized(tiny_model(**SIZES)).to(number()), packed(2, 9, 30)
    before, forward = model(batch), kind.forward
    monkeypatch.setattr(kind, "forward", lambda self, x: forward(self, x) * 1.5)
    after = model(batch)
    with plain():
        expected = model(batch)
    assert error(after, expected) < within(0.03)
    assert error(after, before) > 0.1


def autograd_gradients(model: CausalLM, loss: torch.Tensor) -> list[torch.Tensor]:
    return list(torch.autograd.grad(loss, list(model.parameters())))


@pytest.mark.parametrize("to", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("weights", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", ["qwen3", "llama"])
def test_under_autocast_kernels_change_nothing(
    kernels: Kernels,
    tiny_model: TinyModel,
    shape: str,
    weights: torch.dtype,
    to: torch.dtype,
) -> None:
    model, batch = randomized(tiny_model(**{**SIZES, **SHAPES[shape]})).to(weights), packed(2, 9, 9)

    def computed() -> tuple[torch.Tensor, list[torch.Tensor]]:
        with torch.autocast("cpu", dtype=to):
            logits, loss = model.logits(batch), next_token_loss(model, batch).total
        return logits, autograd_gradients(model, loss)

    logits, found = computed()
    with plain():
        expected, true = computed()
    assert torch.equal(logits, expected)
    # The head's gradient is the loss's own, whose logits are of the type of the head.
    assert all(error(one, other) < 0.01 for one, other in zip(found, true, strict=True))


def test_autocast_around_backward_changes_no_bit(kernels: Kernels, tiny_model: TinyModel) -> None:
    model, batch = randomized(tiny_model(**SIZES)).to(number()), packed(2, 9, 9)
    expected = autograd_gradients(model, next_token_loss(model, batch).total)
    loss = next_token_loss(model, batch).total
    with torch.autocast("cpu", dtype=torch.float16):
        found = autograd_gradients(model, loss)
    assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))


def test_second_derivatives_are_rejected(kernels: Kernels, tiny_model: TinyModel) -> None:
    """Some would be silently left out."""
    model, batch = tiny_model(**SIZES).to(number()), packed(2, 9, 30)
    with pytest.raises(RuntimeError, match=r"only first derivatives.*within .*plain\(\)"):
        torch.autograd.grad(model(batch).sum(), model.model.norm.weight, create_graph=True)
    with plain():
        torch.autograd.grad(model(batch).sum(), model.model.norm.weight, create_graph=True)


def test_a_model_without_gradients(kernels: Kernels, tiny_model: TinyModel) -> None:
    model, batch = tiny_model(**SIZES).to(number()), packed(2, 20, 17)
    with torch.inference_mode():
        found = model.logits(batch)
        with plain():
            expected = model.logits(batch)
    assert error(found, expected) < within(0.02)
