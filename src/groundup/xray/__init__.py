"""What a model is doing: attention, logit lens, token loss, kinds of heads.

`groundup.xray(model, text, tokenizer)` is a function that has the name of this package. Importing
a submodule replaces the function by the package, so the package is callable and calls the function.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from groundup.xray.look import XRay


class _Callable(ModuleType):
    def __call__(self, *args: Any, **settings: Any) -> XRay:
        from groundup.xray.look import xray

        return xray(*args, **settings)


sys.modules[__name__].__class__ = _Callable
