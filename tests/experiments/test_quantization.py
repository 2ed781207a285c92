"""Quantization: errors and KL against their definitions, and the experiment in miniature."""

from __future__ import annotations

import json
from collections import Counter
from copy import deepcopy
from pathlib import Path

import bitsandbytes.functional as bnb
import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy, kl_div

from groundup.adapters.layers import linear_layers
from groundup.adapters.quantization import quantize
from groundup.errors import UserError
from groundup.experiments.config import QuantizationConfig
from groundup.experiments.quantization import (
    FORMATS,
    FULL,
    Outcome,
    Read,
    fitting_formats,
    outcomes,
    plot,
    relative_error,
    remarks,
    run,
    shipped_types,
    table,
    texts,
)
from groundup.formats.folder import save_model
from groundup.formats.gguf.write import save_gguf
from groundup.lm.config import ModelConfig
from groundup.lm.model import CausalLM
from groundup.text.bpe import train_bpe
from groundup.text.example import Example
from groundup.text.tokenizer import Tokenizer
from groundup.train.batch import Batch
from pages import assert_self_contained

VOCAB = 320
# Of each of the items.
DOCUMENTS = ["a", "b", "c", "d"]


@pytest.fixture(scope="module")
def model() -> CausalLM:
    model = CausalLM(ModelConfig.of(width=64, depth=2, vocab_size=VOCAB, context=64))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0.1, 0.2, generator=generator)
    return model.eval()


@pytest.fixture(scope="module")
def items() -> list[Example]:
    drawn = np.random.default_rng(0)
    lengths = (5, 40, 2, 17)
    rows = [drawn.integers(0, VOCAB, length).tolist() for length in lengths]
    return [Example(ids, [False] + [True] * (len(ids) - 1)) for ids in rows]


def test_loss_and_kl_equal_those_of_the_full_logits(model: CausalLM, items: list[Example]) -> None:
    """Each piece separately, by torch's functions, for a model quantized by a direct call."""
    found = {one.name: one for one in outcomes(model, items, np.ones(len(items)), DOCUMENTS)}
    copy = quantize(deepcopy(model), "nf4")
    read = found["nf4, double quantized"].read
    for place, item in enumerate(items):
        ids = torch.tensor([item.ids])
        batch, targets = Batch.of(ids[:, :-1]), ids[0, 1:]
        with torch.no_grad():
            p, q = model.logits(batch)[0], copy.logits(batch)[0]
        expected = kl_div(q.log_softmax(-1), p.log_softmax(-1), log_target=True, reduction="sum")
        assert read.kl[place] == pytest.approx(float(expected), rel=1e-3, abs=1e-5)
        assert read.nats[place] == pytest.approx(
            float(cross_entropy(q, targets, reduction="sum")), rel=1e-5
        )
    assert read.tokens.tolist() == [item.inputs for item in items]
    assert read.perplexity() == pytest.approx(np.exp(read.nats.sum() / read.tokens.sum()))
    full = found[FULL].read
    assert full.kl.tolist() == [0.0] * len(items)
    more = read.more_than(full)
    assert more.estimate == pytest.approx((read.nats - full.nats).sum() / np.log(2) / len(items))


def test_bits_and_errors_are_those_of_the_formats(model: CausalLM, items: list[Example]) -> None:
    found = {one.name: one for one in outcomes(model, items, np.ones(len(items)), DOCUMENTS)}
    assert list(found) == [format.name for format in FORMATS]
    bits = {name: one.bits for name, one in found.items()}
    assert (bits[FULL], bits["bf16"]) == (32, 16)
    assert (bits["GGUF Q8_0"], bits["GGUF Q4_1"], bits["GGUF Q4_0"]) == (8.5, 5, 4.5)
    assert bits["nf4, blocks of 64"] == bits["fp4, blocks of 64"] == 4.5
    assert bits["nf4, blocks of 128"] == 4.25 and 4.1 < bits["nf4, double quantized"] < 4.5
    error = {name: one.error for name, one in found.items()}
    assert error[FULL] == 0 and 0 < error["bf16"] < 2**-8
    assert error["bf16"] < error["GGUF Q8_0"] < error["int8, a scale a row"]
    assert error["int8, a scale a row"] < error["nf4, blocks of 64"] < error["nf4, blocks of 128"]
    # Normal weights are what NF4 was made for (QLoRA, section 3).
    assert error["nf4, blocks of 64"] < error["fp4, blocks of 64"]


def test_the_error_equals_bitsandbytes(model: CausalLM) -> None:
    """With its own quantizer on the same matrices."""
    copy = quantize(deepcopy(model), "nf4", double_quant=False)
    weights = [layer.weight.detach() for layer in linear_layers(model).values()]
    theirs = []
    for weight in weights:
        packed, state = bnb.quantize_4bit(weight, blocksize=64, quant_type="nf4")
        theirs.append(bnb.dequantize_4bit(packed, state))
    error = sum(float((a - b).square().sum()) for a, b in zip(theirs, weights, strict=True))
    size = sum(float(weight.square().sum()) for weight in weights)
    assert relative_error(model, copy) == pytest.approx((error / size) ** 0.5, rel=1e-5)


def test_the_reference_model_does_not_change(model: CausalLM, items: list[Example]) -> None:
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    outcomes(model, items, np.ones(len(items)), DOCUMENTS)
    assert all(torch.equal(before[name], one) for name, one in model.state_dict().items())


def test_rows_without_whole_blocks_skip_llama_cpps_formats() -> None:
    odd = CausalLM(ModelConfig.of(width=64, depth=1, vocab_size=VOCAB, context=16))
    odd.set_submodule("model.layers.0.mlp.down_proj", torch.nn.Linear(72, 64, bias=False))
    assert [format.name for format in fitting_formats(odd)] == [
        w.name for w in FORMATS if "GGUF" not in w.name
    ]


def test_remarks_compare_on_the_same_text(model: CausalLM, items: list[Example]) -> None:
    found = outcomes(model, items, np.ones(len(items)), DOCUMENTS)
    said = remarks(found, Counter())
    assert len(said) == 4 and "nf4, blocks of 64 at 4.50 bits against fp4" in said[0]
    first, *others = remarks(found, Counter({"Q4_1": 3, "Q8_0": 1}))
    assert "Q4_1 3 times, Q8_0 1 times" in first and "already contains that error" in first
    assert others == said
    marked = table(found, "tiny", Counter({"Q4_1": 3, "Q8_0": 1}))
    assert [row[0] for row in marked.lines if "shipped" in row[0]] == ["GGUF Q4_1, as shipped"]
    shown = table(found, "tiny", Counter())
    assert [row[0] for row in shown.lines] == [format.name for format in FORMATS]
    assert shown.lines[0][4] == "" and shown.lines[1][4][0] in "+-"
    assert len(plot(found).figure.axes) == 2


def test_pieces_of_one_document_are_resampled_together() -> None:
    """Five copies of a piece have the information of one, and few documents are not significant."""

    def found(documents: int, copies: int) -> list[Outcome]:
        rng, ones = np.random.default_rng(0), np.ones(documents * copies)
        names = [str(place // copies) for place in range(documents * copies)]
        made = []
        for format in FORMATS:
            nats = np.repeat(rng.random(documents), copies)
            made.append(Outcome(format.name, 4.0, 0.1, Read(nats, nats / 10, ones, ones, names)))
        return made

    once, again = found(20, 1), found(20, 5)
    for one, copied in zip(once, again, strict=True):
        for got, wanted in (
            (copied.read.bits_per_byte(), one.read.bits_per_byte()),
            (copied.read.kl_per_token(), one.read.kl_per_token()),
            (copied.read.more_than(again[0].read), one.read.more_than(once[0].read)),
        ):
            assert vars(got) == pytest.approx(vars(wanted))
    assert remarks(again, Counter()) == remarks(once, Counter())
    assert "100 pieces of 20 documents" in table(again, "tiny", Counter()).remarks[0]
    for documents, few in ((5, True), (6, False)):
        said = remarks(found(documents, 3), Counter())
        assert ["from too few documents" in one for one in said] == [few] * 4


def test_a_model_in_gguf_blocks_is_reported_as_such(model: CausalLM, tmp_path: Path) -> None:
    tokenizer = Tokenizer.from_bpe(train_bpe(["The sea is wide, the sea is deep. "] * 4, 300))
    for type in ("q4_0", "f16"):
        save_gguf(tmp_path / f"{type}.gguf", model, tokenizer, type)
    # The embedding is kept finer, and is the head as well.
    assert shipped_types(tmp_path / "q4_0.gguf") == {"Q4_0": 14, "Q8_0": 1}
    assert not shipped_types(tmp_path / "f16.gguf") and not shipped_types(tmp_path)


def test_the_experiment_in_miniature(model: CausalLM, tmp_path: Path) -> None:
    tokenizer = Tokenizer.from_bpe(train_bpe(["The sea is wide, the sea is deep. "] * 4, 300))
    save_model(tmp_path / "model", model, tokenizer, card="")
    out = run(QuantizationConfig(out=tmp_path / "out", model=tmp_path / "model", quick=True))
    data = json.loads((out / "result.json").read_text(encoding="utf-8"))["data"]
    assert list(data) == [format.name for format in FORMATS]
    assert data["bf16"]["kl"]["estimate"] < data["fp4, blocks of 64"]["kl"]["estimate"]
    # Of long texts there are more pieces than texts.
    config = QuantizationConfig(out=out, model=tmp_path / "model")
    items, sizes, documents = texts(config, model, tokenizer)
    speeches = [one for one in documents if one.startswith("sotu ")]
    assert len(items) == len(sizes) == len(documents)
    assert len(set(speeches)) < len(speeches) and not any("#" in one for one in speeches)
    assert_self_contained((out / "report.html").read_text(encoding="utf-8"))
    # Nothing can be compared with a model that is already quantized.
    save_model(tmp_path / "small", quantize(deepcopy(model)), tokenizer, card="")
    with pytest.raises(UserError, match="already quantized"):
        run(QuantizationConfig(out=tmp_path / "no", model=tmp_path / "small", quick=True))
    # An LSTM has none of the matrices that are quantized.
    sizes = {"width": 64, "depth": 1, "vocab_size": VOCAB, "context": 64}
    recurrent = CausalLM(ModelConfig.recurrent("lstm", **sizes))
    recurrent.initialize(0)
    save_model(tmp_path / "lstm", recurrent, tokenizer, card="")
    with pytest.raises(UserError, match="no linear layer to quantize; give a transformer"):
        run(QuantizationConfig(out=tmp_path / "no", model=tmp_path / "lstm", quick=True))
