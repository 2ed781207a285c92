"""Layers against torch.nn with copied weights, and errors for wrong input."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from groundup import nn
from groundup.maths import ShapeError, Tensor
from groundup.nn.layers import layer_norm, rms_norm
from torch_layers import agree
from torch_oracle import same

RNG = np.random.default_rng(0)
DOUBLE = {"dtype": np.float64}


def normal(*shape: int) -> np.ndarray:
    return RNG.normal(size=shape)


@pytest.mark.parametrize("shape", [(4,), (3, 4), (2, 3, 4), (0, 4)])
@pytest.mark.parametrize("bias", [True, False])
def test_linear(shape: tuple[int, ...], bias: bool) -> None:
    agree(nn.Linear(4, 5, bias, **DOUBLE), torch.nn.Linear(4, 5, bias), normal(*shape))


@pytest.mark.parametrize("shape", [(), (6,), (2, 5)])
def test_embedding(shape: tuple[int, ...]) -> None:
    ids = RNG.integers(7, size=shape)
    agree(nn.Embedding(7, 3, **DOUBLE), torch.nn.Embedding(7, 3), ids, second=False)


def test_embedding_accepts_tensors_and_accumulates_repeated_ids() -> None:
    layer = nn.Embedding(4, 2)
    layer(Tensor(np.array([1, 3, 1]))).sum().backward()
    assert layer.weight.grad is not None
    np.testing.assert_array_equal(layer.weight.grad.data, [[0, 0], [2, 2], [0, 0], [1, 1]])


@pytest.mark.parametrize("inner", [4, (4,), (3, 4)])
def test_layer_norm(inner: Any) -> None:
    ours = nn.LayerNorm(inner, **DOUBLE)
    ours.apply(_with_random_weights)
    agree(ours, torch.nn.LayerNorm(inner), normal(2, 3, 4))


@pytest.mark.parametrize("inner", [4, (3, 4)])
@pytest.mark.parametrize("eps", [None, 1e-3])
def test_rms_norm(inner: Any, eps: float | None) -> None:
    ours = nn.RMSNorm(inner, eps, **DOUBLE)
    ours.apply(_with_random_weights)
    agree(ours, torch.nn.RMSNorm(inner, eps), normal(2, 3, 4) * 1e-2)


def test_the_default_eps_of_rms_norm_is_that_of_the_inputs_dtype() -> None:
    ours, theirs = nn.RMSNorm(4), torch.nn.RMSNorm(4)
    for dtype in ("float32", "float64"):
        x = np.full((1, 4), 1e-5, dtype)
        ours.to(dtype), theirs.to(getattr(torch, dtype))
        expected = theirs(torch.from_numpy(x)).detach().numpy()
        np.testing.assert_allclose(ours(Tensor(x)).data, expected, rtol=1e-5)


def _with_random_weights(layer: nn.Module) -> None:
    """Weights other than the initial ones and zeros."""
    for parameter in layer.parameters():
        parameter.data = parameter.data + normal(*parameter.shape)


@pytest.mark.parametrize("norm", ["layer", "rms"])
def test_norms_of_equal_numbers_have_gradients(norm: str) -> None:
    x, w, b = Tensor(np.zeros((2, 3))), Tensor(np.ones(3)), Tensor(np.zeros(3))
    y = layer_norm(x, w, b, 1e-5) if norm == "layer" else rms_norm(x, w, 1e-5)
    (y * normal(2, 3)).sum().backward()
    assert x.grad is not None and np.isfinite(x.grad.data).all()


@pytest.mark.parametrize("norm", ["LayerNorm", "RMSNorm"])
def test_norms_of_float16_do_not_overflow(norm: str) -> None:
    array, seed = np.array([[600, 2, 3], [6e4, -6e4, 1]], np.float16), normal(2, 3)
    x, t = Tensor(array), torch.tensor(array, requires_grad=True)
    ours = getattr(nn, norm)(3, dtype=np.float16)
    theirs = getattr(torch.nn, norm)(3, dtype=torch.float16)
    y, z = ours(x), theirs(t)
    same(y, z, "value", 1e-3)
    (y * seed.astype(np.float16)).sum().backward()
    (z * torch.tensor(seed).half()).sum().backward()
    same(x.grad, t.grad, "gradient", 1e-3)
    same(ours.weight.grad, theirs.weight.grad, "gradient of weight", 1e-3)


def test_norm_formulas_widen_float16_on_torch() -> None:
    x, one = torch.tensor([[600, 2, 3]]).half(), torch.ones(3).half()
    for ours, theirs in (
        (layer_norm(x, one, one * 0, 1e-5), torch.nn.functional.layer_norm(x, (3,))),
        (rms_norm(x, one, 1e-5), torch.nn.functional.rms_norm(x, (3,), eps=1e-5)),
    ):
        assert ours.dtype == torch.float16
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("dtype", [np.int64, np.uint8])
def test_norms_compute_integers_in_float64(dtype: type, unchecked_types: None) -> None:
    array = np.array([[200, 100, 3]], dtype)
    for norm in (nn.LayerNorm(3, **DOUBLE), nn.RMSNorm(3, **DOUBLE)):
        assert norm(Tensor(array)).tolist() == norm(Tensor(array.astype(float))).tolist()


convolutions = st.fixed_dictionaries(
    {
        "kernel_size": st.integers(1, 4),
        "stride": st.integers(1, 3),
        "padding": st.integers(0, 3),
        "dilation": st.integers(1, 3),
        "bias": st.booleans(),
    }
)


@settings(deadline=None, max_examples=60)
@given(
    convolutions,
    st.integers(1, 3),
    st.integers(1, 2),
    st.integers(1, 2),
    st.integers(1, 9),
    st.data(),
)
def test_convolution(
    options: dict[str, Any], groups: int, into: int, out: int, length: int, data: st.DataObject
) -> None:
    reach = options["dilation"] * (options["kernel_size"] - 1) + 1
    assume(length + 2 * options["padding"] >= reach)
    channels = (into * groups, out * groups)
    agree(
        nn.Conv1d(*channels, **options, groups=groups, **DOUBLE),
        torch.nn.Conv1d(*channels, **options, groups=groups),
        normal(data.draw(st.integers(1, 3)), channels[0], length),
    )


def test_a_convolution_with_kernel_size_one_is_a_linear_layer() -> None:
    conv = nn.Conv1d(3, 5, 1, **DOUBLE)
    linear = nn.Linear(3, 5, **DOUBLE)
    linear.load_state_dict({"weight": conv.weight.data[:, :, 0], "bias": conv.bias.data})
    x = Tensor(normal(2, 3, 7))
    np.testing.assert_allclose(conv(x).data, linear(x.mT).mT.data, rtol=1e-12)


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_dropout_keeps_the_mean(p: float) -> None:
    x = Tensor(np.ones(100_000))
    y = nn.Dropout(p, rng=0)(x)
    zeros = (y.data == 0).mean()
    # Four standard deviations of a share of 100,000.
    assert zeros == pytest.approx(p, abs=4 * np.sqrt(p * (1 - p) / 100_000))
    np.testing.assert_allclose(y.data[y.data != 0], 1 / (1 - p))
    y.sum().backward()
    assert x.grad is not None
    np.testing.assert_array_equal(x.grad.data, y.data)  # what passes, passes back


def test_dropout_at_0_and_1_and_in_evaluation() -> None:
    x = Tensor(normal(50))
    assert (nn.Dropout(0.0)(x).data == x.data).all()
    assert (nn.Dropout(1.0)(x).data == 0).all()
    layer = nn.Sequential(nn.Dropout(0.5))
    assert (layer.eval()(x).data == x.data).all()
    assert (layer.train()(x).data == 0).any()


def test_dropout_has_its_own_generator() -> None:
    x = Tensor(np.ones(64))
    first, second = nn.Dropout(rng=3), nn.Dropout(rng=3)
    np.testing.assert_array_equal(first(x).data, second(x).data)
    assert (first(x).data != nn.Dropout(rng=3)(x).data).any()  # new zeros at each call
    shared = np.random.default_rng(3)
    assert (nn.Dropout(rng=shared)(x).data != nn.Dropout(rng=shared)(x).data).any()


def test_default_dtype_is_float32() -> None:
    x = Tensor(normal(2, 4, 6).astype(np.float32))
    ids = np.array([0, 1])
    net = nn.Sequential(
        nn.Linear(6, 8), nn.LayerNorm(8), nn.GELU(), nn.RMSNorm(8), nn.Dropout(0.1), nn.Softplus()
    )
    for y in (net(x), nn.Conv1d(4, 2, 3, padding=1)(x), nn.Embedding(3, 2)(ids)):
        assert y.dtype == np.float32
        y.sum().backward()
    for parameter in net.parameters():
        assert parameter.grad is not None and parameter.grad.dtype == np.float32


def test_equal_seeds_give_equal_layers_and_no_seed_gives_new_ones() -> None:
    def weights(rng: Any) -> np.ndarray:
        return nn.Linear(3, 3, rng=rng).weight.data

    np.testing.assert_array_equal(weights(1), weights(1))
    assert (weights(1) != weights(2)).all()
    assert (weights(None) != weights(None)).all()
    nn.manual_seed(5)
    first = weights(None)
    nn.manual_seed(5)
    np.testing.assert_array_equal(weights(None), first)


@pytest.mark.parametrize(
    ("make", "theirs"),
    [
        (lambda: nn.Linear(40, 50), lambda: torch.nn.Linear(40, 50)),
        (lambda: nn.Embedding(40, 50), lambda: torch.nn.Embedding(40, 50)),
        (lambda: nn.Conv1d(12, 20, 9, groups=2), lambda: torch.nn.Conv1d(12, 20, 9, groups=2)),
        (lambda: nn.LSTM(20, 30), lambda: torch.nn.LSTM(20, 30)),
    ],
    ids=["Linear", "Embedding", "Conv1d", "LSTM"],
)
def test_initial_values_have_torchs_distribution(make: Any, theirs: Any) -> None:
    torch.manual_seed(0)
    state, truth = make().state_dict(), theirs().state_dict()
    assert list(state) == list(truth)
    for name, values in state.items():
        other = truth[name].numpy()
        n = values.size
        assert abs(values.mean() - other.mean()) < 6 * other.std() / np.sqrt(n), name
        assert values.std() == pytest.approx(other.std(), rel=6 / np.sqrt(n)), name
        if not isinstance(make(), nn.Embedding):  # uniform: the ends are reached and kept
            assert np.abs(values).max() == pytest.approx(np.abs(other).max(), rel=10 / n), name


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: nn.Linear(0, 3), "in_features=0 must be a whole number from 1"),
        (lambda: nn.Linear(4, 3)(Tensor(normal(2, 5))), r"\(2, 5\) and \(4, 3\)"),
        (lambda: nn.Embedding(5, 2)(np.array([1, 5])), "id 5 is not one of the 5 embeddings"),
        (lambda: nn.Embedding(5, 2)(np.array([-1])), "id -1 is not one"),
        (lambda: nn.LayerNorm(4)(Tensor(normal(2, 1))), r"\(2, 1\) does not end in \(4,\)"),
        (lambda: nn.RMSNorm((3, 4))(Tensor(normal(4))), r"\(4,\) does not end in \(3, 4\)"),
        (lambda: nn.Dropout(1.5), "p=1.5 is not a probability"),
        (lambda: nn.Conv1d(4, 6, 3, groups=4), r"groups=4 does not divide .* try 2"),
        (lambda: nn.Conv1d(2, 2, 3)(Tensor(normal(1, 3, 9))), r"\(1, 3, 9\) does not fit"),
        (lambda: nn.Conv1d(2, 2, 3, dilation=2)(Tensor(normal(1, 2, 4))), "at least 5"),
        (lambda: nn.Conv1d(2, 2, 3, stride=0), "stride=0 must be a whole number from 1"),
        (lambda: nn.Conv1d(2, 2, 3, padding=-1), "padding=-1 must be a whole number from 0"),
    ],
)
def test_wrong_input_is_named(call: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


def test_non_integer_ids_are_named(unchecked_types: None) -> None:
    with pytest.raises(ValueError, match="ids are float64; give integers"):
        nn.Embedding(5, 2)(Tensor([1, 2]))  # a list becomes float64


@pytest.mark.parametrize("shape", [(), (9,), (2, 9), (1, 1, 2, 9)])
def test_signals_have_three_dimensions(shape: tuple[int, ...], unchecked_types: None) -> None:
    with pytest.raises(ShapeError, match=r"does not fit \(n, 2, length\)"):
        nn.Conv1d(2, 2, 3)(Tensor(normal(*shape)))


def test_empty_batches_are_convolved() -> None:
    assert nn.Conv1d(2, 3, 2)(Tensor(np.ones((0, 2, 5), np.float32))).shape == (0, 3, 4)


@pytest.mark.parametrize("shape", [3, np.int64(3), [3], (3,)])
def test_a_normalized_shape_may_be_a_number_or_a_list(shape: Any) -> None:
    x = Tensor(np.arange(6.0, dtype=np.float32).reshape(2, 3))
    assert nn.LayerNorm(shape)(x).tolist() == nn.LayerNorm(3)(x).tolist()
