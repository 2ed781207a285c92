"""The decoding step against the whole model, which reads the same tokens at once."""

from __future__ import annotations

import copy
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.modules.module import register_module_forward_hook

from groundup.adapters.attach import add_lora, using_adapter
from groundup.adapters.quantization import quantize
from groundup.formats.gguf.tensors import quantize as to_blocks
from groundup.generation.blocks import BlockLinear
from groundup.generation.decode import Decode
from groundup.generation.generate import generate, reference_generate
from groundup.generation.kernel import MAX_ROWS, MAX_ROWS_IN_BLOCKS, Kernel
from groundup.generation.library import library
from groundup.generation.request import Request
from groundup.generation.sampling import Sampling
from groundup.lm.cache import KVCache
from groundup.lm.config import Rope
from groundup.lm.model import MLP, Attention, Block, CausalLM, Decoder, RMSNorm
from groundup.train.batch import Batch

TinyModel = Callable[..., CausalLM]

SHAPES = {
    "qwen3": {},
    "qwen2": {"model_type": "qwen2", "attention_bias": True},
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
    "no positions, but YaRN's factor": {
        "position_embedding_type": "none",
        "rope": Rope(type="yarn", factor=32.0, attention_factor=1.35),
    },
    "odd sizes": {"intermediate_size": 97, "vocab_size": 323},
    "five queries for a key": {"num_attention_heads": 5, "num_key_value_heads": 1, "head_dim": 38},
    "three queries for a key": {"num_attention_heads": 6, "num_key_value_heads": 2},
}


def randomized(model: CausalLM) -> CausalLM:
    """New models have norms of one, biases of zero and blocks that add nothing."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            scale = 0.3 if parameter.ndim == 1 else parameter.shape[-1] ** -0.5
            parameter.add_(noise * scale)
    return model


@torch.inference_mode()
def check_decode(
    model: CausalLM,
    rows: int,
    tolerance: float,
    *,
    exact: CausalLM | None = None,
    of_the_largest: bool = False,
) -> None:
    """Rows that have read prompts of several lengths go on for ten tokens.

    The tolerance is in logits, or `of_the_largest` of each row; right is what the model says of the
    whole text, or an `exact` copy of it.
    """
    ids = torch.randint(320, (rows, 24), generator=torch.manual_seed(rows))
    whole = (exact or model).logits(Batch.of(ids))
    allowed = tolerance * (whole.abs().amax((1, 2)) if of_the_largest else torch.ones(rows))
    lengths = torch.arange(rows) % 7 + 3
    cache = KVCache.empty(model.config, rows + 1, 20, like=model.head)
    model(Batch.at(ids[:, :10], torch.arange(10).expand(rows, -1)), cache)
    decode = Decode(model)
    decode.begin(cache, lengths.tolist())
    for step in range(10):
        at = lengths + step
        logits = decode.logits(decode.step(ids[torch.arange(rows), at]))
        off = (logits - whole[torch.arange(rows), at]).abs().amax(1)
        assert (off <= allowed).all(), (off, allowed)


@pytest.mark.parametrize("rows", [1, 3, MAX_ROWS + 1, 13])
@pytest.mark.parametrize("shape", SHAPES)
def test_a_step_equals_reading_at_once(tiny_model: TinyModel, shape: str, rows: int) -> None:
    check_decode(randomized(tiny_model(**SHAPES[shape])), rows, 1e-4)


@pytest.mark.parametrize("rows", [1, 13])
def test_a_step_in_bf16_is_within_its_rounding_error(tiny_model: TinyModel, rows: int) -> None:
    model = randomized(tiny_model()).to(torch.bfloat16)
    check_decode(model, rows, 1 / 32, of_the_largest=True)


ADAPTERS: dict[str, dict[str, Any]] = {
    "thin": {"rank": 4},
    "of more than a chunk": {"rank": 40, "alpha": 13.0, "targets": ["q_proj", "gate_proj"]},
    "on some layers": {"rank": 4, "targets": ["k_proj", "up_proj", "o_proj"]},
    "with dropout": {"rank": 4, "dropout": 0.5},
    "rslora": {"rank": 4, "use_rslora": True},
    "dora": {"rank": 4, "use_dora": True},
}


def adapted(tiny_model: TinyModel, adapter: str, **changes: Any) -> CausalLM:
    return randomized(add_lora(randomized(tiny_model(**changes)), **ADAPTERS[adapter])).eval()


def rows_of_the_kernel(model: CausalLM) -> int | None:
    """The largest number of rows that use the kernel; None without a compiler."""
    kernel = Kernel.of(model)
    assert (kernel is None) == (library(torch.float32) is None)
    return None if kernel is None else kernel.most_rows


@pytest.mark.every(5)
@pytest.mark.parametrize("rows", [1, 3, MAX_ROWS + 1, 13])
@pytest.mark.parametrize("biases", [False, True])
@pytest.mark.parametrize("adapter", ADAPTERS)
def test_a_step_with_an_adapter(
    tiny_model: TinyModel, adapter: str, biases: bool, rows: int
) -> None:
    model = adapted(tiny_model, adapter, attention_bias=biases, mlp_bias=biases)
    assert rows_of_the_kernel(model) in (0 if adapter == "dora" else MAX_ROWS, None)
    exact = copy.deepcopy(model).double()
    check_decode(model, rows, 2e-4, exact=exact)
    with using_adapter(model, None), using_adapter(exact, None):
        check_decode(model, rows, 2e-4, exact=exact)


@torch.inference_mode()
@pytest.mark.parametrize("rows", [1, 13])
def test_a_step_in_bf16_with_an_adapter_is_as_close_to_float32_as_the_model(
    tiny_model: TinyModel, rows: int
) -> None:
    model = adapted(tiny_model, "thin").to(torch.bfloat16)
    exact = copy.deepcopy(model).float()
    ids = torch.randint(320, (rows, 24), generator=torch.manual_seed(rows))
    right = exact.logits(Batch.of(ids))
    whole = model.logits(Batch.of(ids))
    cache = KVCache.empty(model.config, rows, 24, like=model.head)
    model(Batch.at(ids[:, :4], torch.arange(4).expand(rows, -1)), cache)
    decode = Decode(model)
    decode.begin(cache, [4] * rows)
    stepped = [decode.logits(decode.step(ids[:, place])) for place in range(4, 24)]
    off, allowed = (
        (logits - right[:, 4:]).square().mean().sqrt()
        for logits in (torch.stack(stepped, 1), whole[:, 4:])
    )
    assert 0 < off < 1.2 * allowed, (off, allowed)


@pytest.mark.parametrize("rows", [1, 13])
@pytest.mark.parametrize("kind", ["nf4", "q8_0"])
def test_a_step_with_an_adapter_on_a_quantized_layer(
    tiny_model: TinyModel, kind: str, rows: int
) -> None:
    model = randomized(tiny_model())
    if kind == "nf4":
        quantize(model, "nf4")
    else:
        for name, layer in list(model.named_modules()):
            if type(layer) is nn.Linear and name != "lm_head":
                blocks = torch.from_numpy(to_blocks(layer.weight.detach(), "q8_0").copy())
                model.set_submodule(name, BlockLinear(blocks, "q8_0"))
    add_lora(model, 4)
    randomized(model)
    assert rows_of_the_kernel(model) in (0 if kind == "nf4" else MAX_ROWS_IN_BLOCKS, None)
    check_decode(model, rows, 2e-4)


@pytest.mark.parametrize("adapter", [None, "on some layers"])
@pytest.mark.parametrize("rows", [1, 3, 13])
def test_without_the_kernel(
    tiny_model: TinyModel,
    rows: int,
    adapter: str | None,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    """As on a machine without a compiler."""
    monkeypatch.setenv("CC", str(tmp_path / "none"))
    monkeypatch.setenv("GROUNDUP_CACHE", str(tmp_path / "cache"))
    library.cache_clear()
    try:
        shape = "window in some layers"
        model = randomized(tiny_model(**SHAPES[shape]))
        if adapter is not None:
            model = adapted(tiny_model, adapter, **SHAPES[shape])
        assert Kernel.of(model) is None
        check_decode(model, rows, 1e-4)
    finally:
        library.cache_clear()


@pytest.mark.long
def test_the_kernel_is_compiled_once(
    tiny_model: TinyModel, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    if subprocess.run(["cc", "--version"], capture_output=True, check=False).returncode:
        pytest.skip("there is no compiler")
    monkeypatch.setenv("GROUNDUP_CACHE", str(tmp_path))
    library.cache_clear()
    try:
        assert Kernel.of(tiny_model()) is not None
        monkeypatch.setenv("PATH", str(tmp_path))
        library.cache_clear()
        assert Kernel.of(tiny_model()) is not None
        assert [file.suffix for file in (tmp_path / "kernels").iterdir()] == [".so"]
    finally:
        library.cache_clear()


def test_weights_may_change_between_calls(tiny_model: TinyModel) -> None:
    model = tiny_model(eos_token_ids=())
    requests = [
        Request([5, 6 + n], sampling=Sampling(temperature=0, max_new_tokens=8)) for n in range(8)
    ]
    for _ in range(2):
        assert [one.ids for one in generate(model, requests)] == [
            one.ids for one in reference_generate(model, requests)
        ]
        randomized(model)


@pytest.mark.parametrize("rows", [1, MAX_ROWS + 1])
def test_the_default_dtype_changes_no_sample(
    tiny_model: TinyModel, another_default_dtype: Callable[[], None], rows: int
) -> None:
    model = randomized(tiny_model(eos_token_ids=()))
    requests = [Request([5, 6 + n], sampling=Sampling(max_new_tokens=8)) for n in range(rows)]
    drawn = generate(model, requests)
    another_default_dtype()
    assert generate(model, requests) == drawn


@pytest.mark.parametrize("name", ["model.layers.0", "model.layers.1.mlp.down_proj", "lm_head"])
@pytest.mark.parametrize("shape", ["qwen3", "alibi"])
def test_a_hook_that_changes_a_layers_output_changes_the_answer(
    tiny_model: TinyModel, shape: str, name: str
) -> None:
    """As ablation and steering do."""
    options = {"position_embedding_type": "alibi"} if shape == "alibi" else SHAPES[shape]
    model = randomized(tiny_model(eos_token_ids=(), **options))
    request = Request([5, 6], sampling=Sampling(temperature=0, max_new_tokens=8))
    plain = generate(model, [request])
    hook = model.get_submodule(name).register_forward_hook(lambda _, __, y: y.roll(1, -1))
    assert generate(model, [request])[0].ids == reference_generate(model, [request])[0].ids
    assert generate(model, [request])[0].ids != plain[0].ids
    hook.remove()
    assert generate(model, [request]) == plain


@pytest.mark.parametrize("rows", [1, MAX_ROWS + 1])
@pytest.mark.parametrize("kind", [CausalLM, Decoder, Block, Attention, MLP, RMSNorm, nn.Linear])
def test_a_replaced_forward_of_a_class_is_called(
    tiny_model: TinyModel, monkeypatch: pytest.MonkeyPatch, kind: type[nn.Module], rows: int
) -> None:
    model = randomized(tiny_model(eos_token_ids=(), tie_word_embeddings=False))
    requests = [
        Request([5, 6 + n], sampling=Sampling(temperature=0, max_new_tokens=8)) for n in range(rows)
    ]
    before = [one.ids for one in generate(model, requests)]
    forward = kind.forward
    monkeypatch.setattr(kind, "forward", lambda self, *args: forward(self, *args).roll(1, -1))
    after = [one.ids for one in generate(model, requests)]
    assert after == [one.ids for one in reference_generate(model, requests)]
    assert after != before
    monkeypatch.undo()
    assert before == [one.ids for one in generate(model, requests)]


@pytest.mark.parametrize("rows", [1, MAX_ROWS + 1])
def test_a_global_module_hook_changes_the_answer(tiny_model: TinyModel, rows: int) -> None:
    model = randomized(tiny_model(eos_token_ids=(), tie_word_embeddings=False))
    requests = [
        Request([5, 6 + n], sampling=Sampling(temperature=0, max_new_tokens=8)) for n in range(rows)
    ]
    before = [one.ids for one in generate(model, requests)]
    turned = model.get_submodule("model.layers.1.mlp")
    hook = register_module_forward_hook(
        lambda module, _, y: y.roll(1, -1) if module is turned else None
    )
    try:
        after = [one.ids for one in generate(model, requests)]
        assert after == [one.ids for one in reference_generate(model, requests)]
    finally:
        hook.remove()
    assert after != before == [one.ids for one in generate(model, requests)]


class Rolled(nn.Module):
    """A layer inside another one, as steering tools do it."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, *args: Any) -> torch.Tensor:
        out: torch.Tensor = self.inner(*args)
        return out.roll(1, -1)


def patched(name: str) -> Callable[[CausalLM], None]:
    def change(model: CausalLM) -> None:
        module = model.get_submodule(name)
        before = module.forward
        module.forward = lambda *args: before(*args).roll(1, -1)

    return change


def subclassed(name: str) -> Callable[[CausalLM], None]:
    def change(model: CausalLM) -> None:
        module = model.get_submodule(name)
        kind: Any = type(module)

        def forward(self: nn.Module, *args: Any) -> torch.Tensor:
            out: torch.Tensor = kind.forward(self, *args)
            return out.roll(1, -1)

        module.__class__ = type("Own", (kind,), {"forward": forward})

    return change


def wrapped(name: str) -> Callable[[CausalLM], None]:
    return lambda model: model.set_submodule(name, Rolled(model.get_submodule(name)))


def gone(name: str) -> Callable[[CausalLM], None]:
    return lambda model: model.set_submodule(name, nn.Identity())


def with_another_activation(model: CausalLM) -> None:
    mlp: Any = model.get_submodule("model.layers.1.mlp")
    mlp.activation = torch.tanh


def with_fewer_heads(model: CausalLM) -> None:
    """Half of the queries that share a key, as after pruning."""
    attention = model.blocks[1].self_attn
    q, o = attention.q_proj, attention.o_proj
    heads = torch.arange(q.out_features).view(-1, 2, model.config.head_dim)[:, 0].flatten()
    attention.q_proj = nn.Linear(q.in_features, len(heads), bias=False)
    attention.o_proj = nn.Linear(len(heads), o.out_features, bias=False)
    attention.q_proj.weight, attention.o_proj.weight = (
        nn.Parameter(weight.detach().clone()) for weight in (q.weight[heads], o.weight[:, heads])
    )


def with_more_inner_features(model: CausalLM) -> None:
    mlp: Any = model.get_submodule("model.layers.1.mlp")
    width, more = model.config.hidden_size, 3 * model.config.intermediate_size
    mlp.gate_proj, mlp.up_proj = (nn.Linear(width, more, bias=False) for _ in range(2))
    mlp.down_proj = nn.Linear(more, width, bias=False)


def with_layers_that_changed_places(model: CausalLM) -> None:
    layers = model.model.layers
    layers[0], layers[1] = layers[1], layers[0]


def with_a_layer_in_two_places(model: CausalLM) -> None:
    model.model.layers[1] = model.model.layers[0]


LAYER = "model.layers.1"
CHANGES: dict[str, Callable[[CausalLM], None]] = {
    **{
        f"{change.__name__} {name}": change(name)
        for change in (patched, subclassed, wrapped)
        for name in (
            *(LAYER, f"{LAYER}.self_attn", f"{LAYER}.mlp", f"{LAYER}.mlp.down_proj"),
            *(f"{LAYER}.input_layernorm", f"{LAYER}.self_attn.q_norm", "model.norm", "lm_head"),
        )
    },
    **{f"gone {name}": gone(name) for name in (f"{LAYER}.mlp", f"{LAYER}.input_layernorm")},
    "gone model.norm": gone("model.norm"),
    **{
        change.__name__: change
        for change in (
            with_another_activation,
            with_fewer_heads,
            with_more_inner_features,
            with_layers_that_changed_places,
            with_a_layer_in_two_places,
        )
    },
}


# One row uses the kernel and many do not: changes of a model's parts or their order are tested with
# the kernel; of the three ways to replace a forward, two with the one and one with the other.
_FORWARDS = 3 * 8
CHANGED = [
    pytest.param(change, rows, marks=() if turn == usual else pytest.mark.long)
    for number, change in enumerate(CHANGES)
    for usual in [(number + number // 8) % 2 if number < _FORWARDS else 0]
    for turn, rows in enumerate((1, MAX_ROWS + 1))
]


@pytest.mark.every(5)
@pytest.mark.parametrize(("change", "rows"), CHANGED)
def test_a_changed_model_is_decoded_as_changed(
    tiny_model: TinyModel, change: str, rows: int
) -> None:
    model = randomized(tiny_model(eos_token_ids=(), tie_word_embeddings=False))
    requests = [
        Request([5, 6 + n], sampling=Sampling(temperature=0, max_new_tokens=8)) for n in range(rows)
    ]
    before = [one.ids for one in generate(model, requests)]
    CHANGES[change](model)
    after = [one.ids for one in generate(model, requests)]
    assert after == [one.ids for one in reference_generate(model, requests)]
    assert after != before
