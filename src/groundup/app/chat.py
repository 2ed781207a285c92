"""`groundup chat`: a conversation with a model at the terminal, streamed."""

from __future__ import annotations

import contextlib
import json
import secrets
import textwrap
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from groundup.adapters.attach import active_adapter, adapter_names
from groundup.app.completions import opened, opened_guard
from groundup.app.conversation import Conversation
from groundup.app.terminal import Wrapped, messages, tell, width
from groundup.errors import UserError, nearest
from groundup.evals.contamination import sources_of
from groundup.generation.sampling import Sampling
from groundup.lm.model import CausalLM
from groundup.report.history import History, lineage
from groundup.runs.console import console, counted, duration
from groundup.runs.files import describe_os_error, errors_naming, read_json_object
from groundup.runs.resumable_jsonl import write
from groundup.text.rows import TemplateVariables
from groundup.train.config import DType

# Prompts for a model that has read the small world, one for each kind of task.
_SUGGESTIONS = (
    "Tell me a story about a fox and a lamp in which it rains.",
    "What is 7 + 5?",
    "Where does the owl live?",
    "How can I steal the key of the baker?",
)
# The model has read this word but little about it: an honest model says that it does not know.
_UNKNOWN = "What is a volcano?"

_HELP = {
    "/retry": "answer the last question again",
    "/continue": "continue an answer that was cut or stopped",
    "/reset": "start a new conversation",
    "/system TEXT": "set the system prompt, which comes before the conversation; without TEXT, "
    "show it; `/system none` removes it",
    "/temperature X": "0 always takes the most likely token; higher is more random",
    "/adapter NAME": "switch to another of the model's adapters, or none",
    "/save FILE": "append the whole conversation to FILE, as a line of JSON that `groundup sft` "
    "can train on",
    "/help": "show this help",
    "/quit": "quit (or Ctrl-D; Ctrl-C stops an answer)",
}
_QUIT = ("/quit", "/exit")


def converse(
    name: str,
    folder: Path,
    sampling: Sampling,
    seed: int | None = None,
    adapters: Sequence[Path] = (),
    guard: Path | None = None,
    *,
    device: str = "cpu",
    template: TemplateVariables | None = None,
    dtype: DType | None = None,
) -> None:
    """Run a conversation until the user quits. Piped input is echoed, as in a transcript.

    `name` is the user's name for the model in `folder`. With several `adapters`, the first answers
    until /adapter switches to another. A `guard` stops messages and answers.
    """
    model, tokenizer = opened(folder, adapters, device, template, dtype)
    talk = Conversation(model, tokenizer, sampling)
    talk.guard = opened_guard(guard)
    tell(introduction(name, folder, model))
    if guard is not None:
        tell(
            f"A guard is on ({guard}): it reads each message and each answer, so answers are not "
            "streamed, and what it stops is replaced by one fixed sentence.\n"
        )
    if sampling.temperature == 0:
        tell("It always takes the most likely next token. /temperature 0.7 makes it random.\n")
    for turn, text in enumerate(messages(_is_command)):
        # A new seed for every answer, so that a repeated question gets another one.
        turn_seed = secrets.randbits(32) if seed is None else (seed + turn) % 2**63
        talk.sampling = replace(talk.sampling, seed=turn_seed)
        command, *_ = text.split(maxsplit=1)
        if command in _QUIT:
            return
        try:
            if command.startswith("/"):
                _do(talk, command, text.removeprefix(command).strip())
            else:
                _ask(talk, text)
        except UserError as error:
            tell(f"({error})")
        except KeyboardInterrupt:  # between two answers
            tell("(stopped)")


def _ask(talk: Conversation, text: str) -> None:
    with _telling_what_is_left_out(talk):
        talk.ask(text)
    with _telling_what_is_left_out(talk):
        _stream(talk, talk.answer())


@contextlib.contextmanager
def _telling_what_is_left_out(talk: Conversation) -> Iterator[None]:
    """Tell the user if the oldest messages are left out for the first time."""
    before = talk.forgotten
    yield
    if talk.forgotten and not before:
        tell(
            "(the conversation has outgrown what the model sees at once: from now on the oldest "
            "messages are not shown to it; /save keeps them all)"
        )


def _stream(talk: Conversation, pieces: Generator[str], before: str = "") -> None:
    """Write an answer as it is generated, and how it ended."""
    out = Wrapped()
    out.push(before)
    # Closing the generator makes the conversation keep the answer so far.
    with contextlib.closing(pieces) as answer:
        try:
            empty = True
            for piece in answer:
                out.push(piece)
                empty = empty and not piece.strip()
            out.push("(no words)" if empty else "")
        except KeyboardInterrupt:
            out.push(" … (stopped)")
    last = talk.last
    if last is not None and last.cut:
        how = f"at {last.tokens} tokens; /continue continues it, or raise --max-new-tokens"
        if last.tokens < talk.sampling.max_new_tokens:
            how = f"after {last.tokens} tokens: the model's context is full"
        out.push(f" … (cut {how})")
    out.finish()
    write("\n")
    columns = width()
    if last is not None and last.tokens_per_second is not None and columns is not None:
        speed = f"{last.tokens_per_second:,.{int(last.tokens_per_second < 10)}f}"
        count = f"{last.tokens} tokens, {speed} tokens/s"
        console.print(count, style="dim", markup=False, soft_wrap=False, width=columns)
    write("\n")


# Commands.


def _is_command(line: str) -> bool:
    """Whether a line is a command, and not a pasted path or comment."""
    names = {name.split()[0] for name in _HELP} | set(_QUIT)
    return line.split(maxsplit=1)[:1] != [] and line.split(maxsplit=1)[0] in names


def _do(talk: Conversation, name: str, argument: str) -> None:
    """Run a command. Raises `UserError` if it is unknown or fails."""
    commands: dict[str, Callable[[], str]] = {
        "/retry": lambda: _retry(talk),
        "/continue": lambda: _continue(talk),
        "/reset": lambda: _reset(talk),
        "/system": lambda: _system(talk, argument),
        "/temperature": lambda: _temperature(talk, argument),
        "/adapter": lambda: _adapter(talk, argument),
        "/save": lambda: _save(talk, argument),
        "/help": _help,
    }
    if name not in commands:
        known = [*commands, _QUIT[0]]
        # Compared without the slash, which all commands share.
        near = nearest(name[1:], [one[1:] for one in known])
        hint = "" if near is None else f"did you mean '/{near}'? "
        raise UserError(
            f"{name} is not a command; {hint}{'T' if hint else 't'}here are {', '.join(known)}"
        )
    if reply := commands[name]():
        tell(reply)


def _retry(talk: Conversation) -> str:
    before = talk.messages[-1:]
    with _telling_what_is_left_out(talk):
        talk.ask_again()
        _stream(talk, talk.answer())
    if talk.messages[-1:] != before:
        return ""
    if talk.sampling.temperature == 0:
        return "(at temperature 0 the answer is always the same; /temperature 0.7 makes it random)"
    return "(the same answer again: the model is sure of it; a higher /temperature is more random)"


def _continue(talk: Conversation) -> str:
    with _telling_what_is_left_out(talk):
        _stream(talk, talk.go_on(), before="…")
    return ""


def _reset(talk: Conversation) -> str:
    talk.reset()
    if talk.system is None:
        return "(a new conversation)"
    return "(a new conversation; the system prompt stays)"


def _system(talk: Conversation, argument: str) -> str:
    if argument:
        talk.use_system(None if argument == "none" else argument)
    if talk.system is None:
        return "(no system prompt is set; /system TEXT sets one)"
    return f"(system prompt: {talk.system})"


def _save(talk: Conversation, argument: str) -> str:
    if argument and argument[0] in "'\"" and argument[0] == argument[-1]:  # as in a shell
        argument = argument[1:-1]
    if not argument:
        raise UserError("name a file: /save talk.jsonl")
    if not talk.messages:
        raise UserError("nothing has been said yet")
    line = json.dumps({"messages": talk.said}, ensure_ascii=False) + "\n"
    try:
        path = Path(argument).expanduser()
        with errors_naming(path), path.open("a+b") as file:
            # A file from elsewhere may lack its final newline.
            if file.tell() and (file.seek(-1, 2), file.read(1))[1] != b"\n":
                line = f"\n{line}"
            file.write(line.encode())
    except OSError as error:
        raise UserError(describe_os_error(error)) from None
    except (RuntimeError, ValueError) as error:  # an unknown home folder, a zero byte
        raise UserError(f"{argument!r} cannot be written: {error}") from None
    return f"({counted(len(talk.said), 'message')} appended to {path})"


def _temperature(talk: Conversation, argument: str) -> str:
    if argument:
        try:
            value = float(argument)
        except ValueError:
            raise UserError(
                f"temperature={argument!r} must be a number; try /temperature 0.7"
            ) from None
        talk.sampling = replace(talk.sampling, temperature=value)
    return f"(temperature {talk.sampling.temperature:g})"


def _adapter(talk: Conversation, argument: str) -> str:
    names = adapter_names(talk.model)
    if not names:
        raise UserError("the model has no adapters; groundup chat MODEL --adapter DIR adds one")
    if argument:
        talk.use_adapter(None if argument == "none" else argument)
    active = active_adapter(talk.model) or "none"
    return f"(adapter {active}; choices: {', '.join([*names, 'none'])})"


def _help() -> str:
    """All commands, in two columns if they fit."""
    columns = width() or 80
    room = max(map(len, _HELP)) + 2
    if columns < 2 * room + 20:
        return "\n".join(f"{name}\n  {meaning}" for name, meaning in _HELP.items())
    return "\n".join(
        textwrap.fill(
            meaning, columns, initial_indent=name.ljust(room), subsequent_indent=" " * room
        )
        for name, meaning in _HELP.items()
    )


# The introduction.


def introduction(name: str, folder: Path, model: CausalLM) -> str:
    """Return the text that is shown before a conversation at the terminal.

    `name` is the user's name for the model in `folder`.
    """
    paragraphs = about(name, folder, model)
    if tries := suggestions(folder):
        *known, unknown = tries
        paragraphs += ["Try one of these:", *(f"  {asked}" for asked in known)]
        paragraphs += [
            "And one about the real world: it has read too little to know the answer, and should "
            "say so:",
            f"  {unknown}",
        ]
    paragraphs.append("/help shows all commands; Ctrl-D quits.")
    return "\n".join(paragraphs) + "\n"


def about(name: str, folder: Path, model: CausalLM) -> list[str]:
    """Return a description of a model in paragraphs, from the records of its runs."""
    runs = lineage(folder)
    known = f"You are talking to {name}, {model.config.parameters / 1e6:.1f} million parameters"
    if runs:
        start = "another model" if runs[0].chats else "random weights"
        costs = [run.costs() for run in runs]
        tokens = round(sum(cost["tokens"] for cost in costs))
        seconds = 60 * sum(cost["minutes"] for cost in costs)
        known += (
            f", trained from {start} on {tokens:,} tokens in {duration(seconds)} "
            f"({', then '.join(run.stage for run in runs)})"
        )
    paragraphs = [
        f"{known}.",
        "It is a small program that continues text with likely words. It is not a person, it "
        "knows little, and it makes things up: check everything it says.",
    ]
    if runs and not runs[-1].chats:
        paragraphs.append(
            "This one was never taught to answer (groundup sft does that), so it rambles."
        )
    return paragraphs


def suggestions(folder: Path) -> list[str]:
    """Return prompts for a chat model that has read the small world; it cannot know the last.

    All runs are checked: the last may have read only pairs, whose folder does not name the world.
    """
    runs = lineage(folder)
    knows = runs and runs[-1].chats and any(run.chats and _has_world(run) for run in runs)
    return [*_SUGGESTIONS, _UNKNOWN] if knows else []


def _has_world(run: History) -> bool:
    """Whether a run's training data contain the generated small world."""
    for _, data in sources_of(run):
        # A user's own file may be called data.json too.
        with contextlib.suppress(UserError):
            if read_json_object(data / "data.json").get("world") is not None:
                return True
    return False
