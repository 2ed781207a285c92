from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from peft import LoraConfig
from peft.tuners.tuners_utils import check_target_module_exists
from peft.utils.other import get_pattern_key
from torch import nn

from architectures import recurrent, transformer
from groundup.adapters.attach import add_lora
from groundup.adapters.layers import Targets, by_pattern, chosen, linear_layers
from groundup.adapters.quantization import quantize
from groundup.errors import UserError
from groundup.lm.model import CausalLM

ENDS = [
    "q_proj",
    "k_proj",
    "up_proj",
    "proj",
    "self_attn.q_proj",
    "mlp",
    "0",
    "1.mlp.up_proj",
]
NAMES = [
    f"model.layers.{block}.{part}"
    for block in (0, 1, 2, 10, 11)
    for part in ("self_attn.q_proj", "self_attn.k_proj", "mlp.up_proj", "mlp", "input_layernorm")
] + ["lm_head", "model.norm", "model.experts.3.layers.1.mlp.up_proj", "layers.1.mlp.up_proj"]
EXPRESSIONS = [
    r".*\.(q|k)_proj", r"model\.layers\.\d\.mlp\..*", "q_proj", r".*1.*", r"^model.*proj$",
    r"a|.*up_proj", r"(?i).*Q_PROJ", ".*",
]  # fmt: skip


def test_routers_are_adapted_and_quantized_only_by_name() -> None:
    """They have one row per expert, fewer than the default rank."""
    model = CausalLM(transformer(2, (4, 2)))
    gates = [path for path in linear_layers(model) if path.endswith(".gate")]
    assert gates and set(linear_layers(model)) - set(chosen(model, None)) == set(gates)
    assert set(chosen(model, ["gate"])) == set(gates)
    assert set(chosen(model, "all-linear")) == set(linear_layers(model))
    add_lora(quantize(model, "nf4"))
    for path in gates:
        assert isinstance(model.get_submodule(path), nn.Linear)


def test_a_model_without_linear_layers_rejects_adapters() -> None:
    with pytest.raises(UserError, match="have no linear layers, as in a recurrent network"):
        add_lora(CausalLM(recurrent("lstm")), rank=2)


some = st.lists(st.sampled_from(ENDS), min_size=1, max_size=3)


@given(
    names=some | st.sampled_from(EXPRESSIONS),
    exclude=st.none() | some | st.sampled_from(EXPRESSIONS),
    layers=st.none() | st.lists(st.sampled_from([0, 1, 3, 10]), max_size=2) | st.just(1),
    pattern=st.none() | st.sampled_from(["layers", "experts", r"lay\w+", ""]),
    whole=st.none() | st.lists(st.sampled_from(["norm", "mlp", "lm_head", "up"]), max_size=2),
)
def test_targets_select_the_layers_of_peft(
    names: Any, exclude: Any, layers: Any, pattern: Any, whole: Any
) -> None:
    if isinstance(names, str):
        layers = pattern = None  # PEFT takes no numbers with an expression
    if layers is None:
        pattern = None
    theirs = LoraConfig(
        target_modules=names,
        exclude_modules=exclude,
        layers_to_transform=layers,
        layers_pattern=pattern,
        modules_to_save=whole,
    )
    ours = Targets(
        names if isinstance(names, str) else tuple(names),
        exclude if isinstance(exclude, str) else tuple(exclude or ()),
        (layers,) if isinstance(layers, int) else tuple(layers or ()),
        (pattern,) if pattern else (),
        tuple(whole or ()),
    )
    for name in NAMES:
        assert ours.match(name) == bool(check_target_module_exists(theirs, name)), name


@given(
    st.dictionaries(
        st.sampled_from([*ENDS, *EXPRESSIONS[:4], *NAMES, r"layers\.1\..*", "^model.layers.0.mlp"]),
        st.integers(1, 99),
        max_size=4,
    )
)
def test_patterns_give_the_numbers_of_peft(patterns: dict[str, int]) -> None:
    for name in NAMES:
        expected = patterns.get(get_pattern_key(patterns.keys(), name), 8)
        assert by_pattern(patterns, name, 8) == expected


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("(", r"name '\(' is not a regular expression .*; use plain layer names"),
        ("(" * 50_000 + ")" * 50_000, r"name '\(\(.*…' is not a regular expression \(maximum recu"),
        (r"(.|.)*\d{2}$", r"takes too long to match model.layers.0.self_attn.q_proj; use plain"),
    ],
    ids=["broken", "deep", "endless"],
)
def test_regular_expressions_from_strangers_are_stopped(pattern: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        Targets(pattern).match(NAMES[0])
    with pytest.raises(UserError, match=message):
        by_pattern({pattern: 1}, NAMES[0], 8)
