from __future__ import annotations

import copy
from dataclasses import replace

import pytest
from transformers import GPT2Config, LlamaConfig, MistralConfig, Qwen2Config, Qwen3Config

from groundup.errors import UserError
from groundup.formats.hf_config import config_from_hf, config_to_hf, rope_from_hf
from groundup.lm.config import ModelConfig, Rope


@pytest.mark.parametrize("tied", [True, False])
def test_hugging_face_spelling_round_trips(tied: bool) -> None:
    rope = Rope(theta=5e5, type="llama3", factor=8.0, original_max_position_embeddings=32)
    config = ModelConfig(
        320, 64, 128, 2, 4, 2, 16, rope=rope, tie_word_embeddings=tied, model_type="llama",
        attention_bias=True, mlp_bias=True, eos_token_ids=(2,),
    )  # fmt: skip
    assert config_from_hf(config_to_hf(config)) == config


def test_transformers_reads_the_same_shape_from_our_config() -> None:
    config = ModelConfig.of(width=128, depth=3, vocab_size=512, context=256)
    theirs = Qwen3Config(**config_to_hf(config))
    for name in (
        "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "head_dim",
        "num_attention_heads", "num_key_value_heads", "max_position_embeddings", "rms_norm_eps",
        "tie_word_embeddings", "attention_bias", "bos_token_id", "pad_token_id",
    ):  # fmt: skip
        assert getattr(theirs, name) == getattr(config, name), name
    assert config_from_hf(theirs.to_dict()).rope == config.rope


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
    {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64, "beta_fast": 16},
]


@pytest.mark.parametrize("scaling", SCALINGS, ids=lambda scaling: scaling["rope_type"])
def test_both_spellings_of_rope_are_equivalent(scaling: dict[str, float]) -> None:
    before = rope_from_hf({"rope_theta": 1e5, "rope_scaling": scaling})
    now = rope_from_hf({"rope_parameters": {"rope_theta": 1e5, **scaling}})
    assert before == now
    assert before.theta == 1e5 and before.type == scaling["rope_type"]
    # The oldest spelling says `type`.
    oldest = {"type": scaling["rope_type"], **scaling}
    del oldest["rope_type"]
    assert rope_from_hf({"rope_theta": 1e5, "rope_scaling": oldest}) == now


@pytest.mark.parametrize("scaling", SCALINGS[2:], ids=lambda scaling: scaling["rope_type"])
def test_the_original_context_may_be_a_top_level_field_which_takes_precedence(
    scaling: dict[str, float],
) -> None:
    without = {n: value for n, value in scaling.items() if n != "original_max_position_embeddings"}
    for inside in ({**scaling}, without):
        described = {"rope_scaling": inside, "original_max_position_embeddings": 16}
        assert rope_from_hf(described).original_max_position_embeddings == 16
        theirs = LlamaConfig(**described)
        theirs.standardize_rope_params()  # as every model of theirs does
        assert theirs.rope_parameters["original_max_position_embeddings"] == 16


@pytest.mark.parametrize("theta", [{}, {"rope_theta": 5e5}], ids=["no theta", "theta"])
@pytest.mark.parametrize(
    "scaling",
    [
        {"type": "linear", "factor": 2.0},
        {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 256},
        {"rope_type": "yarn", "factor": 4.0, "rope_theta": 777.0},
        {},
        None,
    ],
)
def test_rope_scaling_replaces_rope_parameters_as_in_transformers(
    scaling: dict[str, object] | None, theta: dict[str, float]
) -> None:
    before = {"rope_type": "default", "rope_theta": 1e6}
    described = {"rope_parameters": before, "rope_scaling": scaling, **theta}
    read = rope_from_hf({"max_position_embeddings": 2048, **described})
    theirs = LlamaConfig(**copy.deepcopy(described)).rope_parameters
    assert (read.type, read.theta) == (theirs["rope_type"], theirs["rope_theta"])
    assert read.factor == theirs.get("factor", 1.0)
    if read.type == "yarn":
        assert read.original_max_position_embeddings == theirs["original_max_position_embeddings"]


def test_no_scaling_is_null_in_old_files() -> None:
    assert rope_from_hf({"rope_theta": 1e6, "rope_scaling": None}) == Rope(theta=1e6)


@pytest.mark.parametrize(
    ("scaling", "lacks"),
    [
        ({"rope_type": "linear"}, "factor"),
        ({"rope_type": "yarn"}, "factor"),
        ({"rope_type": "yarn", "original_max_position_embeddings": 16}, "factor"),
        ({"rope_type": "llama3", "low_freq_factor": 1.0, "high_freq_factor": 4.0}, "factor"),
        ({"rope_type": "llama3", "factor": 8.0, "high_freq_factor": 4.0}, "low_freq_factor"),
        ({"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0}, "high_freq_factor"),
    ],
)
@pytest.mark.parametrize("place", ["rope_parameters", "rope_scaling"])
def test_a_scaling_without_its_numbers_is_rejected_as_in_transformers(
    place: str, scaling: dict[str, object], lacks: str
) -> None:
    described = {"max_position_embeddings": 64, "rope_theta": 1e4, place: scaling}
    with pytest.raises(KeyError, match=f"Missing required keys .*'{lacks}'"):
        LlamaConfig(**copy.deepcopy(described))
    with pytest.raises(UserError, match=f"{place} says rope_type=.* but no {lacks}, without"):
        rope_from_hf(described)
    numbers = {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
    whole = {**numbers, **scaling} if scaling["rope_type"] == "llama3" else {**scaling, "factor": 2}
    assert rope_from_hf({**described, place: whole}).type == scaling["rope_type"]


def test_yarns_factor_may_be_null_and_follows_from_the_contexts() -> None:
    scaling = {"rope_type": "yarn", "factor": None, "original_max_position_embeddings": 16}
    assert rope_from_hf({"max_position_embeddings": 64, "rope_parameters": scaling}).factor == 4.0
    with pytest.raises(UserError, match="rope_type=linear but no factor"):
        rope_from_hf({"rope_parameters": {"rope_type": "linear", "factor": None}})


LLAMA = LlamaConfig().to_dict()
GPT2 = GPT2Config().to_dict()
MISTRAL = MistralConfig(num_hidden_layers=2).to_dict()
QWEN3 = Qwen3Config(num_hidden_layers=2).to_dict()
NESTED = {
    "full_attention": {"rope_type": "linear", "factor": 4.0},
    "sliding_attention": {"rope_type": "default"},
}
QWEN2 = {
    **Qwen2Config(num_hidden_layers=24).to_dict(),
    "use_sliding_window": True,
    "sliding_window": 8,
}


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"model_type": "bert"}, "'bert' is not supported; this version reads qwen3, qwen2, llama"),
        ({"model_type": ["gpt2"]}, "is not supported"),
        ({}, "model_type None is not supported"),
        ({"model_type": "llama"}, "config.json lacks 'hidden_size'"),
        ({"model_type": "gpt2"}, "config.json lacks 'n_embd', which gpt2 needs"),
        ({**LLAMA, "hidden_act": "swoosh"}, "hidden_act 'swoosh' is not supported; silu, gelu"),
        ({**LLAMA, "hidden_size": "wide"}, "hidden_size='wide', which must be a whole number"),
        ({**LLAMA, "num_hidden_layers": 10**9}, "num_hidden_layers=1000000000, which must be"),
        ({**LLAMA, "num_attention_heads": True}, "num_attention_heads=True"),
        ({**LLAMA, "num_key_value_heads": 3}, "num_key_value_heads=3 does not divide"),
        ({**LLAMA, "rms_norm_eps": "small"}, "rms_norm_eps='small', which must be a number"),
        ({**LLAMA, "tie_word_embeddings": "yes"}, "tie_word_embeddings='yes'"),
        ({**LLAMA, "eos_token_id": ["</s>"]}, "token id '</s>', which must be a number"),
        ({**LLAMA, "rope_parameters": [1]}, "rope_parameters=.* must be an object"),
        ({**LLAMA, "rope_parameters": {"rope_type": "longrope"}}, "'longrope' is not supported"),
        ({**LLAMA, "rope_parameters": {"rope_type": "linear", "factor": -1}}, "factor=-1"),
        ({**LLAMA, "rope_parameters": {"rope_theta": float("nan")}}, "rope_theta=nan"),
        ({**LLAMA, "rope_parameters": {"rope_theta": 10**400}}, "rope_theta=1000"),
        ({**LLAMA, "rms_norm_eps": 10**400}, "rms_norm_eps=1000"),
        (
            {**LLAMA, "rope_parameters": {"rope_type": "yarn", "factor": 2, "mscale": "x"}},
            "mscale='x'",
        ),
        ({**LLAMA, "partial_rotary_factor": 0.5}, "partial_rotary_factor=0.5"),
        ({**LLAMA, "rope_scaling": [1]}, "rope_scaling=.* must be an object"),
        ({**LLAMA, "is_causal": False}, "is_causal=False, which is not supported"),
        ({**LLAMA, "quantization_config": {"bits": 4}}, "quantization_config=.*not supported"),
        ({**GPT2, "scale_attn_by_inverse_layer_idx": True}, "scale_attn_by_inverse_layer_idx"),
        ({**MISTRAL, "layer_types": ["full_attention", "sliding_attention"]}, "no window, which"),
        ({**MISTRAL, "layer_types": 3}, "layer_types=3"),
        ({**QWEN2, "layer_types": ["full_attention"]}, "one kind for each of 24 layers"),
        ({**QWEN2, "layer_types": ["chunked_attention"] * 24}, "chunked_attention"),
        ({**QWEN2, "use_sliding_window": False, "layer_types": ["chunked_attention"] * 24},
         "layer_types has 'chunked_attention'"),
        ({**QWEN3, "layer_types": ["linear_attention"] * 2}, "layer_types has 'linear_attention'"),
        ({**LLAMA, "layer_types": [3]}, "layer_types has 3"),
        ({**QWEN3, "rope_parameters": NESTED}, "rope_parameters has settings for each kind"),
        ({**QWEN2, "rope_parameters": NESTED}, "such as 'full_attention', which is not supported"),
        ({**LLAMA, "rope_scaling": NESTED}, "rope_scaling has settings for each kind of layer"),
        ({**QWEN2, "layer_types": None, "max_window_layers": "1"}, "max_window_layers='1', which"),
        ({**QWEN2, "layer_types": None, "max_window_layers": -1}, "max_window_layers=-1, which"),
    ],
)  # fmt: skip
def test_unsupported_configs_are_rejected(config: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        config_from_hf(config)


def test_missing_fields_have_their_familys_defaults() -> None:
    """Files of every age omit the defaults of the class that read them."""
    sizes = {
        "vocab_size": 320, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 3,
        "num_attention_heads": 8,
    }  # fmt: skip
    for theirs in (LlamaConfig, MistralConfig, Qwen3Config):
        config = config_from_hf({"model_type": theirs.model_type, **sizes})
        meant = theirs(**sizes)
        for name in ("head_dim", "max_position_embeddings", "rms_norm_eps", "tie_word_embeddings"):
            assert getattr(config, name) == getattr(meant, name), (theirs, name)
    gpt2 = config_from_hf({"model_type": "gpt2", "vocab_size": 9, "n_embd": 64, "n_layer": 1,
                                "n_head": 4})  # fmt: skip
    assert (gpt2.intermediate_size, gpt2.head_dim, gpt2.num_key_value_heads) == (256, 16, 4)
    assert gpt2.tie_word_embeddings and gpt2.max_position_embeddings == 1024


@pytest.mark.parametrize(
    ("config", "windows"),
    [
        (MistralConfig(num_hidden_layers=2, sliding_window=7).to_dict(), (7, 7)),
        (MistralConfig(num_hidden_layers=2, sliding_window=None).to_dict(), (None, None)),
        ({**QWEN2, "num_hidden_layers": 3, "layer_types": None, "max_window_layers": 1},
         (None, 8, 8)),
        ({**QWEN2, "num_hidden_layers": 3, "layer_types": None, "max_window_layers": 1.0},
         (None, 8, 8)),
        ({**QWEN2, "num_hidden_layers": 3, "layer_types": None, "max_window_layers": None},
         (None, None, None)),
        ({**QWEN2, "num_hidden_layers": 2, "layer_types": ["sliding_attention", "full_attention"]},
         (8, None)),
        ({**QWEN2, "use_sliding_window": False}, (None,) * 24),
    ],
)  # fmt: skip
def test_windows_are_per_layer(config: dict[str, object], windows: tuple[int | None, ...]) -> None:
    read = config_from_hf(config)
    assert read.windows == windows
    assert config_from_hf(config_to_hf(read)).windows == windows


def test_null_key_heads_equal_query_heads() -> None:
    config = {**MistralConfig(num_attention_heads=4, hidden_size=64).to_dict()}
    assert config_from_hf(config | {"num_key_value_heads": None}).num_key_value_heads == 4
    del config["num_key_value_heads"]
    with pytest.raises(UserError, match="num_key_value_heads=8 does not divide"):
        config_from_hf(config)


def test_the_old_methods_of_the_shape_still_work() -> None:
    config = ModelConfig.of(width=128, depth=3, vocab_size=512, context=256)
    with pytest.warns(DeprecationWarning, match="hf_config.config_to_hf"):
        described = config.to_hf()
    with pytest.warns(DeprecationWarning, match="hf_config.config_from_hf"):
        assert ModelConfig.from_hf(described) == replace(config, eos_token_ids=(2,))
