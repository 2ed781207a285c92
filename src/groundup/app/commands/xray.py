"""`xray`: write a page that shows what a model does with a text."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from groundup.app.commands.options import Force, Mine, ModelFolder, checked, with_parts
from groundup.app.recipe_folder import find_model
from groundup.errors import UserError
from groundup.train import ranges


@checked
def xray(
    model: ModelFolder,
    /,
    *,
    text: Annotated[
        str | None,
        Parameter(help="the text to read (default: the last sample of the model's own run)"),
    ] = None,
    chat: Annotated[
        bool,
        Parameter(negative="", show_default=False, help="read the text as a message to answer"),
    ] = False,
    without: Annotated[
        tuple[str, ...],
        Parameter(
            negative="",
            consume_multiple=True,
            show_default=False,
            help="remove these heads, each LAYER.HEAD from 0, and show what changes",
        ),
    ] = (),
    against: Annotated[
        Path | None,
        Parameter(help="compare with this model, which must have the same tokenizer"),
    ] = None,
    tokens: Annotated[
        ranges.TokensSeen, Parameter(help="maximum tokens of the text that are shown")
    ] = 128,
    out: Annotated[
        Path, Parameter(help="the page to write; a name without an extension gets .html")
    ] = Path("xray.html"),
    force: Force = False,
    mine: Mine = None,
) -> None:
    """Write a page that shows what a model does with a text."""
    if text is not None and not text:
        raise UserError('--text is empty; give a text in quotes: --text "The sea"')
    if text is None and chat:
        raise UserError('--chat needs a message; give one in quotes: --text "Who are you?"')
    folder = find_model(model)
    other = None if against is None else (find_model(against), str(against))
    from groundup.app.xray import look

    with with_parts(mine):
        look(
            folder,
            text,
            name=str(model),
            chat=chat,
            without=without,
            against=other,
            tokens=tokens,
            out=out if out.suffix or out.is_dir() else out.with_suffix(".html"),
            force=force,
        )
