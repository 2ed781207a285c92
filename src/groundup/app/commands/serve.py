"""`serve`: serve models to other programs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Group, Parameter

from groundup.app.commands.options import (
    ApiKey,
    Device,
    DType,
    GuardFolder,
    Host,
    Mine,
    ModelFolder,
    Port,
    SamplingOptions,
    Template,
    checked,
    with_parts,
)
from groundup.app.recipe_folder import find_model
from groundup.errors import UserError
from groundup.formats.locate import is_named
from groundup.train import ranges
from groundup.train.config import DType as TrainingDType

if TYPE_CHECKING:
    from groundup.serve.worker import Served

_REQUESTS = Group(
    "Sampling, unless a request sets it (default: generation_config.json's settings if it samples, "
    "else the most likely token)",
    sort_key=10,
)


@checked
def serve(
    *models: ModelFolder,
    host: Host = "127.0.0.1",
    port: Port = 8000,
    api_key: ApiKey = None,
    allow_origins: Annotated[
        tuple[str, ...],
        Parameter(
            negative="",
            consume_multiple=True,
            show_default=False,
            help="web pages that may send requests, such as http://localhost:3000, or * for all "
            "(default: none)",
        ),
    ] = (),
    adapter: Annotated[
        tuple[Path, ...],
        Parameter(
            negative="",
            consume_multiple=True,
            show_default=False,
            help="folders of adapters for the model, ours or PEFT's; each answers under its own "
            "name, next to the model without them",
        ),
    ] = (),
    guard: GuardFolder = None,
    device: Device = "cpu",
    dtype: DType = None,
    template: Template = None,
    batch_size: Annotated[
        ranges.BatchSize, Parameter(help="completions of a model that are generated at a time")
    ] = 32,
    waiting: Annotated[
        ranges.BatchSize,
        Parameter(help="how many more may wait; beyond that, requests get status 429"),
    ] = 256,
    sampling: Annotated[SamplingOptions, _REQUESTS],
    mine: Mine = None,
) -> None:
    """Serve models through an OpenAI-compatible API."""
    if not models:
        raise UserError("there is no model to serve; name one: groundup serve quickstart")
    if len(models) > 1 and adapter:
        raise UserError(
            f"--adapter is for one model, and {len(models)} are given; serve the folders of the "
            "adapters as models, or one model alone"
        )
    folders = {name: find_model(one) for name, one in _names(models).items()}
    from groundup.serve.server import listening, require_server
    from groundup.serve.server import serve as answer

    require_server("serve")
    with listening(host, port) as at, with_parts(mine):
        from groundup.app.completions import opened_guard

        reader = opened_guard(guard)
        served = [
            one
            for name, folder in folders.items()
            for one in opened_models(name, folder, adapter, device, template, sampling, dtype)
        ]
        answer(
            [replace(one, guard=reader) for one in served],
            at,
            host,
            batch_size=batch_size,
            waiting=waiting,
            api_key=api_key,
            allow_origins=allow_origins,
        )


def _names(models: Sequence[Path]) -> dict[str, Path]:
    """The models by their names for clients: the folder's name, or its path if two share a name.

    Raises `UserError` for a model that is given twice.
    """
    short = [str(one) if is_named(one) else one.resolve().name for one in models]
    count = Counter(short)
    names = [
        name if count[name] == 1 else str(one) for name, one in zip(short, models, strict=True)
    ]
    twice = next((name for name, times in Counter(names).items() if times > 1), None)
    if twice is not None:
        raise UserError(f"{twice} is given twice; name each model once")
    return dict(zip(names, models, strict=True))


def opened_models(
    name: str,
    folder: Path,
    adapters: Sequence[Path],
    device: str,
    template: dict[str, bool | str] | None = None,
    sampling: SamplingOptions = SamplingOptions(),  # noqa: B008 (frozen)
    dtype: TrainingDType | None = None,
) -> list[Served]:
    """A model under its name, and each of its adapters under its own."""
    from groundup.adapters.attach import active_adapter, adapter_names
    from groundup.app.chat import about, suggestions
    from groundup.app.completions import opened, sampling_of
    from groundup.serve.worker import Served

    model, tokenizer = opened(folder, adapters, device, template, dtype)
    drawn = sampling_of(folder, **sampling.model_dump())
    own = None if adapters else active_adapter(model)
    others = adapter_names(model) if adapters else []
    if name in others:
        raise UserError(f"the model and an adapter are both called {name}; rename a folder")
    names = {name: own} | {other: other for other in others}
    return [
        Served(
            one,
            model,
            tokenizer,
            drawn,
            longest=sampling.max_new_tokens,
            about=tuple(about(one, folder, model)),
            suggestions=tuple(suggestions(folder)),
            adapter=which,
        )
        for one, which in names.items()
    ]
