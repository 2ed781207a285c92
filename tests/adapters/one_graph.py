"""How many graphs the compiler makes of adapted blocks; a program, for types are not checked in it.

One graph without breaks must serve all blocks, whatever the adapter and its base are.
"""

from __future__ import annotations

import torch
import torch._dynamo
from torch._dynamo.utils import counters

from groundup.adapters.attach import add_lora
from groundup.adapters.quantization import quantize
from groundup.lm.config import ModelConfig
from groundup.lm.model import CausalLM
from groundup.train.batch import Batch

CASES = (
    (False, {"use_rslora": True}),
    (True, {"dropout": 0.3}),
    (False, {"use_dora": True, "dropout": 0.3}),
)


def main() -> None:
    for quantized, options in CASES:
        torch._dynamo.reset()
        counters.clear()
        model = CausalLM(ModelConfig.of(width=64, depth=2, vocab_size=64, context=16))
        model.initialize(0)
        if quantized:
            quantize(model)
        add_lora(model, 4, **options).bfloat16().train()  # type: ignore[arg-type]
        # The input of the first block has a gradient too, as those of all others.
        model.model.embed_tokens.weight.requires_grad_()
        for block in model.model.layers:
            block.compile(fullgraph=True, dynamic=False, backend="eager")
        for _ in range(2):
            model(Batch.of(torch.arange(32).view(2, 16))).sum().backward()
        assert counters["stats"]["unique_graphs"] == 1, (quantized, options, counters)


if __name__ == "__main__":
    main()
