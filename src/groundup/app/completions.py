"""`groundup generate`: completions of prompts from the command line, or from a file as JSON Lines.

A file's completions are written in the order in which they end, not in the order of the prompts:
each has the `index` of its row, from 0, where bad rows count and empty lines do not. Each line is
written at once, so a stopped run can be resumed at any moment (see `resumable_lines`).
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import MofNCompleteColumn, TextColumn

from groundup.adapters.attach import use_adapter
from groundup.data.records import Records, read_prompts
from groundup.errors import UserError, shorten
from groundup.formats.adapter import generation_config_of, model_hash, with_adapters
from groundup.formats.load import load, tokenizer_with
from groundup.generation.engine import BATCH_SIZE, Engine
from groundup.generation.generate import generate, stream
from groundup.generation.guarded import Guard, guarded_text, guarding, stopped_completion
from groundup.generation.json_schema import Schema, json_grammar
from groundup.generation.request import Completion, InputProcessor, Request, SequenceState
from groundup.generation.sampling import Sampling, recorded
from groundup.lm.model import CausalLM
from groundup.runs.console import counted, printable, progress, say
from groundup.runs.files import file_hash, files_of, is_number, read_json_object
from groundup.runs.resumable_jsonl import resumable_lines, write
from groundup.text.chat import with_template_variables
from groundup.text.rows import BadLine, PromptRow, TemplateVariables, as_dicts
from groundup.text.tokenizer import Tokenizer
from groundup.train.config import DType
from groundup.train.device import dtype_of, resolve_device
from groundup.train.ranges import TopLogprobs, check

SCHEMA = 2
STREAM = Path("-")  # standard input or output
_NUMBERS = ("temperature", "top_p", "min_p", "repetition_penalty")
# Not in transformers, whose generation_config.json has the other settings.
_TOKEN_PENALTIES = ("presence_penalty", "frequency_penalty")
_WHOLE = ("top_k", "max_new_tokens", "min_new_tokens", "seed")
# Settings of other programs: their names here, or None where groundup has no equivalent.
_FOREIGN = {
    "max_tokens": "max_new_tokens",
    "max_completion_tokens": "max_new_tokens",
    "stop_sequences": "stop",
    "stop_token_ids": "stop_ids",
    "min_tokens": "min_new_tokens",
    "max_length": "max_new_tokens",
    "do_sample": "temperature",
    "num_return_sequences": None,
    "best_of": None,
    "num_beams": None,
    "no_repeat_ngram_size": None,
    "typical_p": None,
}


def sampling_of(folder: Path, **given: Any) -> Sampling:
    """Return the sampling settings: the values given, else those of the model's folder.

    As in transformers, decoding is greedy for a folder whose generation_config.json does not turn
    sampling on, and for a GGUF file. The folder's repetition penalty applies either way, since it
    changes which token is most likely. Raises `UserError` for invalid values in the folder.
    """
    given = {name: value for name, value in given.items() if value is not None}
    settings: dict[str, Any] = {"temperature": 0.0}
    defaults = {"temperature": 1.0, "top_k": 50}  # transformers' defaults for sampling
    if (file := generation_config_of(folder)) is not None:
        own = read_json_object(file)
        names: tuple[str, ...] = ("repetition_penalty",)
        if own.get("do_sample") is True:
            names, settings = (*_NUMBERS, "top_k"), defaults
        try:
            settings |= _settings({name: own.get(name) for name in names if name not in given})
            Sampling(**settings)
        except UserError as error:
            raise UserError(
                f"{file} has {error}; correct it there, or give another value here"
            ) from None
    return Sampling(**settings | given)


# Prompts from the command line.


def opened(
    folder: Path,
    adapters: Sequence[Path] = (),
    device: str = "cpu",
    template: TemplateVariables | None = None,
    dtype: DType | None = None,
) -> tuple[CausalLM, Tokenizer]:
    """Load the model and its tokenizer; with several `adapters`, the first one is active.

    `template` sets variables of the chat template. The model computes in `dtype`, by default its
    own.
    """
    place = resolve_device(device)
    computed = None if dtype is None else dtype_of(dtype, place)
    model, tokenizer = load(folder, keep_quantized=not adapters, dtype=computed, device=place)
    if adapters:
        use_adapter(model, with_adapters(model, adapters, base=folder)[0])
        tokenizer = tokenizer_with(adapters[0], folder)
    return model, with_template_variables(tokenizer, template or {})


def write_completions(
    folder: Path,
    prompts: Sequence[str],
    sampling: Sampling,
    *,
    as_messages: bool,
    adapter: Path | None = None,
    guard: Path | None = None,
    device: str = "cpu",
    template: TemplateVariables | None = None,
    dtype: DType | None = None,
    schema: Path | None = None,
) -> None:
    """Write the completion of each prompt to standard output.

    With `schema`, a file with a JSON Schema, each completion matches it.
    """
    options = _Options(sampling, as_messages, 0, read_schema(schema))
    reader = opened_guard(guard)
    model, tokenizer = opened(folder, [adapter] if adapter else [], device, template, dtype)
    with guarding(model, reader):
        _write_completions(model, tokenizer, prompts, options)


def read_schema(file: Path | None) -> Schema | None:
    """Read a JSON Schema from a file. Raises `UserError` for one that cannot be enforced."""
    if file is None:
        return None
    found = read_json_object(file)
    try:
        json_grammar(found)
    except UserError as error:
        raise UserError(f"{file}: {error}") from None
    return found


def opened_guard(folder: Path | None) -> Guard | None:
    if folder is None:
        return None
    # Imported late: it is rarely used and loads the training code.
    from groundup.align.guards.model import load_guard

    return load_guard(folder)


def _write_completions(
    model: CausalLM,
    tokenizer: Tokenizer,
    prompts: Sequence[str],
    options: _Options,
) -> None:
    as_messages = options.as_messages
    requests = [
        Request(
            prompt=None if as_messages else prompt,
            messages=[{"role": "user", "content": prompt}] if as_messages else None,
            sampling=options.sampling,
            schema=options.schema,
        )
        for prompt in prompts
    ]
    # Only a terminal needs control characters replaced.
    shown = printable if sys.stdout.isatty() else str
    if len(requests) == 1:
        pieces = stream(model, tokenizer, requests[0])
        # An invalid prompt raises here, before anything is written.
        first = next(pieces, "")
        write(("" if as_messages else prompts[0]) + shown(first))
        for piece in pieces:
            write(shown(piece))
        write("\n")
        return
    for prompt, completion in zip(prompts, generate(model, requests, tokenizer), strict=True):
        write(f"{prompt}{chr(10) if as_messages else ''}{shown(completion.text)}\n\n")


# Prompts from a file.


def complete_file(
    folder: Path,
    prompts: Path,
    out: Path | None,
    sampling: Sampling,
    *,
    as_messages: bool,
    logprobs: int | None = None,
    batch_size: int | None = None,
    adapter: Path | None = None,
    guard: Path | None = None,
    device: str = "cpu",
    template: TemplateVariables | None = None,
    dtype: DType | None = None,
    schema: Path | None = None,
    force: bool = False,
) -> None:
    """Complete every prompt of a file; lines go to `out`, or to standard output.

    `prompts` may also be a pipe, or `STREAM` for standard input, with rows in JSON Lines. A row's
    own settings override `sampling`. `as_messages` turns each text prompt into a message.
    `logprobs` adds token ids and their log-probabilities, and those of this many most likely
    tokens. Bad lines are reported on standard error and left out.
    """
    if logprobs is not None:
        check("logprobs", logprobs, TopLogprobs, "0 gives only the sampled tokens'; try 5")
    options = _Options(sampling, as_messages, logprobs or 0, read_schema(schema))
    given = _read(prompts)
    records = given.records
    begun_with = {
        # Schema 1 did not count bad rows; without any, both schemas give the same indices.
        "schema": SCHEMA if records.bad else 1,
        "model": model_hash(folder),
        "adapter": adapter and model_hash(adapter, alone=True),
        "guard": guard and model_hash(guard),
        "prompts": given.hash,
        "chat": as_messages,
        "logprobs": logprobs,
        "template": template or None,
        "dtype": dtype,
        "json_schema": options.schema,
        **recorded(sampling),
    }
    inputs = [*given.files, *files_of(folder), *(files_of(adapter) if adapter is not None else ())]
    reader = opened_guard(guard)
    with resumable_lines(out, json.loads(json.dumps(begun_with)), inputs=inputs, force=force) as (
        write_line,
        finished,
    ):
        model, tokenizer = opened(folder, [adapter] if adapter else [], device, template, dtype)
        jobs, bad = _jobs(InputProcessor(model.config, tokenizer), records, given.name, options)
        for line in (*records.bad, *bad):
            print(line, file=sys.stderr)
        todo = [job for job in jobs if job.index not in finished]
        guarded = _Guarded(reader, tokenizer)
        engine = Engine(model, tokenizer, batch_size=batch_size or BATCH_SIZE, prompt_tokens=None)
        bar = _Bar(len(jobs), len(jobs) - len(todo), hidden=out is None and sys.stdout.isatty())
        try:
            _run(engine, todo, write_line, bar, guarded, with_logprobs=logprobs is not None)
        except KeyboardInterrupt:
            again = "" if out is None else "; the same command continues from here"
            raise KeyboardInterrupt(f"stopped{again}") from None
    if out is not None:
        count = len(records.bad) + len(bad)
        left = f"; {counted(count, 'bad line')} left out" if count else ""
        say(f"{counted(len(jobs), 'completion')} written to {out}{left}")


@dataclass(frozen=True)
class _Prompts:
    """Prompts with the hash of their bytes, the name for messages, and the files they are in."""

    records: Records[PromptRow]
    hash: str
    name: str
    files: Sequence[Path]


def _read(prompts: Path) -> _Prompts:
    if prompts != STREAM and not prompts.is_fifo():
        records = read_prompts(prompts)
        return _Prompts(records, file_hash(prompts), str(prompts), files_of(prompts))
    # A stream can be read only once, so its rows are copied to a file.
    name = "standard input" if prompts == STREAM else str(prompts)
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "prompts.jsonl"
        copy.write_bytes(_all_of(prompts, name))
        try:
            records = read_prompts(copy)
        except UserError as error:
            said = str(error).replace(repr(str(copy)), name).replace(str(copy), name)
            raise UserError(said) from None
        bad = tuple(replace(line, file=name) for line in records.bad)
        return _Prompts(replace(records, bad=bad), file_hash(copy), name, ())


def _all_of(stream: Path, name: str) -> bytes:
    own = stream == STREAM
    try:
        with open(0 if own else stream, "rb", closefd=not own) as source:
            return source.read()
    except OSError as error:
        raise UserError(f"{name} cannot be read ({error.strerror}); give a file") from None


@dataclass(frozen=True)
class _Options:
    """How prompts are completed, unless their rows say otherwise."""

    sampling: Sampling
    as_messages: bool
    top_logprobs: int
    schema: Schema | None = None


@dataclass(frozen=True)
class _Job:
    index: int
    asked: PromptRow
    row: SequenceState


def _jobs(
    processor: InputProcessor, records: Records[PromptRow], file: str, options: _Options
) -> tuple[list[_Job], list[BadLine]]:
    """The prompts to complete, and the bad ones.

    All rows are processed in order, finished ones too, because equal requests are numbered.
    """
    jobs, bad = list[_Job](), list[BadLine]()
    lines = [*(row.line for row in records.rows), *(line.line for line in records.bad)]
    places = {line: index for index, line in enumerate(sorted(lines))}
    for asked in records.rows:
        try:
            row = processor.process(_request(asked, options))
            jobs.append(_Job(places[asked.line], asked, row))
        except UserError as error:
            bad.append(BadLine(file, asked.line, str(error)))
    return jobs, bad


def _request(asked: PromptRow, options: _Options) -> Request:
    sampling = replace(options.sampling, **_settings(asked.settings))
    is_chat = bool(options.as_messages or asked.messages)
    if not is_chat and asked.system is not None:
        raise UserError("'system' needs messages, and this prompt is a text; pass --chat")
    return Request(
        prompt=None if is_chat else asked.text,
        messages=as_dicts(asked.asked) if is_chat else None,
        sampling=sampling,
        top_logprobs=options.top_logprobs,
        schema=options.schema,
    )


def _settings(given: Mapping[str, object]) -> dict[str, Any]:
    """A row's own sampling settings, with types checked; `Sampling` checks the ranges."""
    found: dict[str, Any] = {}
    for name, ours in _FOREIGN.items():
        if given.get(name) is not None:
            remedy = f"write {ours}" if ours else "leave it out"
            raise UserError(f"{name}={shorten(given[name])} is not a setting here; {remedy}")
    if (value := given.get("ignore_eos")) is not None:
        if not isinstance(value, bool):
            raise UserError(f"ignore_eos={shorten(value)} must be true or false")
        found["ignore_eos"] = value
    for name in (*_NUMBERS, *_TOKEN_PENALTIES, *_WHOLE):
        value = given.get(name)
        if value is None:
            continue
        if not is_number(value) or (name in _WHOLE and not isinstance(value, int)):
            raise UserError(
                f"{name}={shorten(value)} must be a {'whole ' * (name in _WHOLE)}number"
            )
        found[name] = value
    if (value := given.get("logit_bias")) is not None:
        found["logit_bias"] = value
    for name, kind in (("stop", str), ("stop_ids", int)):
        value = given.get(name)
        if value is None:
            continue
        values = value if isinstance(value, list) else [value]
        if not all(isinstance(one, kind) and not isinstance(one, bool) for one in values):
            word = "strings" if kind is str else "token ids"
            raise UserError(f"{name}={shorten(value)} must be a list of {word}")
        found[name] = tuple(values)
    return found


def _run(
    engine: Engine,
    todo: Sequence[_Job],
    write_line: Callable[[str], None],
    bar: _Bar,
    guarded: _Guarded,
    *,
    with_logprobs: bool,
) -> None:
    """Complete every job and write its line as it finishes."""
    stopped = guarded.stopped(todo)
    for job in stopped:
        line = _line(job, stopped_completion(), with_logprobs)
        write_line(json.dumps(line, ensure_ascii=False) + "\n")
        bar.completed += 1
    # Sorted by length, so that batches have little padding.
    done = {job.index for job in stopped}
    rest = [job for job in todo if job.index not in done]
    ordered = sorted(rest, key=lambda job: len(job.row.prompt))
    jobs = {engine.enqueue(job.row): job for job in ordered}
    with bar:
        while engine.unfinished:
            for event in engine.step():
                if event.error is not None:
                    raise event.error
                bar.tokens += event.token is not None
                if event.completion is not None:
                    job = jobs.pop(event.id)
                    line = _line(job, guarded.checked(job, event.completion), with_logprobs)
                    write_line(json.dumps(line, ensure_ascii=False) + "\n")
                    bar.completed += 1
            bar.show()


@dataclass(frozen=True)
class _Guarded:
    """Applies an optional guard to prompts and their completions."""

    guard: Guard | None
    tokenizer: Tokenizer

    def stopped(self, jobs: Sequence[_Job]) -> list[_Job]:
        if self.guard is None:
            return []
        stopped = self.guard.stops([self._asked(job) for job in jobs])
        return [job for job, stops in zip(jobs, stopped, strict=True) if stops]

    def checked(self, job: _Job, completion: Completion) -> Completion:
        if self.guard is None or not self.guard.stops([self._asked(job)], [completion.text])[0]:
            return completion
        return stopped_completion()

    def _asked(self, job: _Job) -> str:
        return guarded_text(job.row.request, self.tokenizer)


def _line(job: _Job, completion: Completion, with_logprobs: bool) -> dict[str, Any]:
    asked, line = job.asked, dict[str, Any](index=job.index)
    if asked.id is not None:
        line["id"] = asked.id
    if asked.text is not None:
        line["prompt"] = asked.text
    else:
        line["messages"] = as_dicts(asked.messages)
    line |= {
        "text": completion.text,
        "finish_reason": completion.finish_reason,
        "tokens": len(completion.ids),
    }
    if with_logprobs:
        line |= {"ids": completion.ids, "logprobs": completion.logprobs}
        if completion.top_logprobs is not None:
            line["top_logprobs"] = completion.top_logprobs
    return line


@dataclass
class _Bar:
    """A progress bar on standard error if that is a terminal."""

    total: int
    completed: int
    hidden: bool
    tokens: int = 0

    def __enter__(self) -> _Bar:
        console = Console(stderr=True, highlight=False)
        self._begun = time.monotonic()
        speed = TextColumn("{task.fields[speed]:,.0f} tok/s")
        self._progress = progress(MofNCompleteColumn(), speed, on=console, hidden=self.hidden)
        self._task = self._progress.add_task("generate", total=self.total, speed=0.0)
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def show(self) -> None:
        speed = self.tokens / max(1e-9, time.monotonic() - self._begun)
        self._progress.update(self._task, completed=self.completed, speed=speed)
