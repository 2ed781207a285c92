"""groundup: build a language model from the ground up, on your own machine.

From the first derivative to an aligned chat model: mathematics and neural networks on NumPy alone,
then tokenizer, transformer, pre-training, fine-tuning and alignment on PyTorch. A default model is
saved as a Hugging Face folder.

    model, tokenizer = groundup.load("runs/sft")
    groundup.generate(model, [groundup.Request(prompt="The sea")], tokenizer)

The names below are imported on first use, so `import groundup` is instant and does not need torch.
"""

from __future__ import annotations

import importlib

from groundup.deprecated import install, renamed
from groundup.errors import UserError

# `typing.TYPE_CHECKING` without the cost of importing `typing`: Ctrl-C is not handled yet here.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from groundup.formats.load import load
    from groundup.generation.generate import generate, stream
    from groundup.generation.request import Completion, Request
    from groundup.generation.sampling import Sampling
    from groundup.lm.attention import scaled_dot_product_attention
    from groundup.lm.logprobs import entropy, logprobs
    from groundup.lm.positions import apply_rope
    from groundup.text.batches import get_batch
    from groundup.text.tokenizer import Tokenizer
    from groundup.xray.look import xray

__version__ = "0.1.0"

__all__ = [
    "Completion",
    "Request",
    "Sampling",
    "Tokenizer",
    "UserError",
    "__version__",
    "apply_rope",
    "entropy",
    "generate",
    "get_batch",
    "load",
    "logprobs",
    "scaled_dot_product_attention",
    "stream",
    "xray",
]

_HOMES = {
    "Completion": "groundup.generation.generate",
    "Request": "groundup.generation.generate",
    "Sampling": "groundup.generation.sampling",
    "Tokenizer": "groundup.text.tokenizer",
    "apply_rope": "groundup.lm.positions",
    "entropy": "groundup.lm.logprobs",
    "generate": "groundup.generation.generate",
    "get_batch": "groundup.text.batches",
    "load": "groundup.formats.load",
    "logprobs": "groundup.lm.logprobs",
    "scaled_dot_product_attention": "groundup.lm.attention",
    "stream": "groundup.generation.generate",
    "xray": "groundup.xray.look",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        return renamed(__name__, name)
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return __all__


install()
