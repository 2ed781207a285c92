"""`generate`, `chat`, `export`, `verify` and `card`: commands that use a model."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Group, Parameter

from groundup.app.commands.options import (
    SAMPLING,
    Adapter,
    Device,
    DType,
    Force,
    GuardFolder,
    Mine,
    ModelFolder,
    SamplingOptions,
    Template,
    checked,
    with_parts,
)
from groundup.app.recipe_folder import find_model
from groundup.data.files import ROW_KINDS
from groundup.errors import UserError
from groundup.formats.locate import is_named
from groundup.runs.console import say
from groundup.train import ranges

_FILES = Group("A file of prompts", sort_key=5)


@checked
def generate(
    model: ModelFolder,
    /,
    *prompts: Annotated[str, Parameter(help="texts to continue (default: standard input)")],
    prompts_file: Annotated[
        Path | None,
        Parameter(
            name="--prompts",
            group=_FILES,
            help="complete every prompt of this file and write JSON Lines: a .txt file with one "
            f"prompt per line, or a {ROW_KINDS} file with rows of prompt or messages, which may "
            "also set id, temperature, max_new_tokens, seed, stop …; - or a pipe gives such rows "
            "as JSON Lines",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        Parameter(
            group=_FILES,
            help="file to write, which the same command continues after a stop; lines come in the "
            "order in which completions end, each with the index of its row, from 0 (default: -, "
            "standard output)",
        ),
    ] = None,
    logprobs: Annotated[
        ranges.TopLogprobs | None,
        Parameter(
            group=_FILES,
            help="also write token ids and log-probabilities, and those of this many most likely "
            "tokens",
        ),
    ] = None,
    force: Annotated[Force, Parameter(group=_FILES)] = False,
    batch_size: Annotated[
        ranges.BatchSize | None,
        Parameter(group=_FILES, help="completions generated at a time (default: 32)"),
    ] = None,
    adapter: Adapter = None,
    guard: GuardFolder = None,
    device: Device = "cpu",
    dtype: DType = None,
    template: Template = None,
    schema: Annotated[
        Path | None,
        Parameter(
            help="a file with a JSON Schema that completions must match; they are whole if "
            "--max-new-tokens is large enough (default: any text)"
        ),
    ] = None,
    chat: Annotated[
        bool,
        Parameter(negative="", show_default=False, help="treat each prompt as a message to answer"),
    ] = False,
    sampling: SamplingOptions,
    stop: Annotated[
        tuple[str, ...],
        Parameter(group=SAMPLING, negative="", show_default=False, help="end before this text"),
    ] = (),
    seed: Annotated[
        ranges.Seed | None,
        Parameter(group=SAMPLING, help="the same seed gives the same text (default: 0)"),
    ] = None,
    mine: Mine = None,
) -> None:
    """Write completions of the prompts."""
    if prompts_file is not None and prompts:
        raise UserError(
            f"there are prompts on the command line and in --prompts={prompts_file}; "
            "give one or the other"
        )
    of_files = {
        "--out": out is not None,
        "--logprobs": logprobs is not None,
        "--batch-size": batch_size is not None,
        "--force": force,
    }
    given = [option for option, is_given in of_files.items() if is_given]
    if prompts_file is None and given:
        raise UserError(f"{given[0]} is for a file of prompts; name it with --prompts")
    if "" in stop:
        raise UserError("--stop='' must not be empty; give a text, or leave it out")
    folder = find_model(model)
    texts = () if prompts_file is not None else _prompts(prompts)
    from groundup.app.completions import STREAM, complete_file, sampling_of, write_completions

    drawn = sampling_of(folder, **sampling.model_dump(), stop=stop or None, seed=seed)
    with with_parts(mine):
        if prompts_file is None:
            write_completions(
                folder,
                texts,
                drawn,
                as_messages=chat,
                adapter=adapter,
                guard=guard,
                device=device,
                template=template,
                dtype=dtype,
                schema=schema,
            )
        else:
            complete_file(
                folder,
                prompts_file,
                None if out == STREAM else out,
                drawn,
                as_messages=chat,
                logprobs=logprobs,
                batch_size=batch_size,
                adapter=adapter,
                guard=guard,
                device=device,
                template=template,
                dtype=dtype,
                schema=schema,
                force=force,
            )


def _prompts(given: Sequence[str]) -> Sequence[str]:
    texts = given or (() if sys.stdin.isatty() else (_standard_input(),))
    if not any(texts):
        raise UserError(
            'no prompt was given; give one in quotes: groundup generate MODEL "The sea"'
        )
    for text in texts:
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise UserError(
                f"the prompt is not valid UTF-8 (character {error.start + 1}); "
                "give it as text in UTF-8"
            ) from None
    return texts


def _standard_input() -> str:
    if hasattr(sys.stdin, "reconfigure"):
        sys.stdin.reconfigure(encoding="utf-8", errors="surrogateescape")
    try:
        return sys.stdin.read().rstrip("\n")
    except OSError as error:
        raise UserError(
            f"standard input cannot be read ({error.strerror or error}); give the prompt in quotes"
        ) from None


@checked
def chat(
    model: ModelFolder,
    /,
    *,
    adapter: Annotated[
        tuple[Path, ...],
        Parameter(
            negative="",
            consume_multiple=True,
            show_default=False,
            help="folders of adapters for the model, ours or PEFT's; the first one answers, and "
            "/adapter NAME switches to another",
        ),
    ] = (),
    guard: GuardFolder = None,
    device: Device = "cpu",
    dtype: DType = None,
    template: Template = None,
    sampling: SamplingOptions,
    seed: Annotated[
        ranges.Seed | None,
        Parameter(group=SAMPLING, help="give the same answers every time (default: new ones)"),
    ] = None,
    mine: Mine = None,
) -> None:
    """Talk with a model."""
    folder = find_model(model)
    from groundup.app.chat import converse
    from groundup.app.completions import sampling_of

    drawn = sampling_of(folder, **sampling.model_dump())
    with with_parts(mine):
        converse(
            str(model),
            folder,
            drawn,
            seed,
            adapter,
            guard,
            device=device,
            template=template,
            dtype=dtype,
        )


@checked
def export(
    model: ModelFolder,
    /,
    *,
    to: Annotated[
        Literal["gguf", "hf"],
        Parameter(help="one file for llama.cpp and Ollama, or a Hugging Face folder"),
    ] = "gguf",
    type: Annotated[
        str | None,
        Parameter(
            help="how weights are stored: f32, f16, bf16; in gguf also q8_0, q5_1, q5_0, q4_1 and "
            "q4_0, and with llama.cpp (extra llama-cpp) q4_k_m, q5_k_m, q6_k and similar types "
            "(default: q8_0; in hf the model's own)"
        ),
    ] = None,
    out: Annotated[
        Path | None, Parameter(help="folder to write (default: next to the model)")
    ] = None,
    force: Annotated[Force, Parameter(help="write into a folder that holds other files")] = False,
) -> None:
    """Write a model in a format that other programs read, and check that it is the same."""
    from groundup.formats.export import export as write

    # A model given by name is exported to the current folder.
    source = model if is_named(model) else find_model(model)
    say(f"Written:     {write(source, to, type, out, force=force)}")


@checked
def verify(
    model: ModelFolder,
    /,
    *,
    against: Annotated[
        Path | None, Parameter(help="the model folder that a GGUF file was made from")
    ] = None,
) -> None:
    """Compare a model's results with and without cache, in batches, transformers and copies."""
    folder, original = find_model(model), None if against is None else find_model(against)
    from groundup.formats.checks import require_same
    from groundup.formats.verify import verify

    require_same(verify(folder, original), folder)


@checked
def card(
    model: ModelFolder,
    /,
    *,
    reports: Annotated[
        tuple[Path, ...],
        Parameter(
            name=("--reports", "--values"),
            negative="",
            consume_multiple=True,
            show_default=False,
            help="report folders of this model: of groundup eval values, eval report, eval core, "
            "eval rewards, redteam and frontier (default: all next to the model's folder)",
        ),
    ] = (),
    mine: Mine = None,
) -> None:
    """Write the measurements of a model into its card."""
    from groundup.evals.cards.card import write_card

    with with_parts(mine):
        say(f"Written:     {write_card(find_model(model), reports)}")
