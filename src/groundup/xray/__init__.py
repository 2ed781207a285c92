"""What a model is doing: attention, logit lens, token loss, kinds of heads.

`groundup.xray(model, text, tokenizer)` is a function, and this folder has its name: whoever has
imported one of its pages finds the folder under that name, so that the folder answers a call as the
function.
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
