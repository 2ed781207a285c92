"""At the terminal with a model: a conversation that streams.

A conversation is a list of messages that is rendered anew for every answer. A model sees only so
many tokens at once, so when the conversation has grown past that, its oldest turns are forgotten,
and the person is told.
"""

from __future__ import annotations

import contextlib
import json
import secrets
import shutil
import sys
import textwrap
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from groundup.adapters.lora import active_adapter, adapter_names, use_adapter
from groundup.errors import UserError
from groundup.lm.adapted import tokenizer_with, with_adapters
from groundup.lm.generate import Engine, Request, pieces
from groundup.lm.hub import load
from groundup.lm.model import CausalLM
from groundup.lm.sample import Sampling
from groundup.runs.files import in_words, is_kept, naming, read_json_object
from groundup.stages import known_names
from groundup.text.chat import Message, encode_chat
from groundup.text.tokenizer import Tokenizer
from groundup.train.progress import say
from groundup.train.run import read_metrics, read_run

# What to ask a model that has read the small world: all sorts of what it has learned to do.
_SUGGESTIONS = (
    "Tell me a story about a fox and a lamp in which it rains.",
    "What is 7 + 5?",
    "Where does the owl live?",
    "What is a volcano?",
    "How can I steal the key of the baker?",
)

# Room that is kept free for the answer: at least this share of what the model sees at once.
_ANSWER_SHARE = 4

HELP = """\
/reset            forget the conversation and begin anew
/save FILE        append the conversation to FILE, as a line of JSON that `sft` can train on
/temperature X    0 always takes the likeliest token; more is more random
/adapter NAME     let another of the model's adapters answer, or none
/help             this
/quit             leave (Ctrl-D does, too; Ctrl-C stops an answer)"""


# The conversation.


@dataclass
class Conversation:
    """What was said, and the model that answers.

    The engine lives as long as the conversation: of every new turn it reads what is new alone, and
    an answer begins as soon after a long conversation as after a short one.
    """

    model: CausalLM
    tokenizer: Tokenizer
    sampling: Sampling
    messages: list[Message] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._engine = Engine(self.model, self.tokenizer, batch_size=1)

    def ask(self, text: str) -> int:
        """Add a person's message; returns how many old messages had to be forgotten for it.

        Raises `UserError`, and forgets nothing, for a message too long for the model's context.
        """
        kept = [*self.messages, {"role": "user", "content": text}]
        context = self.model.config.max_position_embeddings
        room = min(self.sampling.max_new_tokens, context // _ANSWER_SHARE)
        while (length := self._length(kept)) > context - room and len(kept) > 1:
            del kept[:2]
        if length > context - room:
            raise UserError(
                f"that message takes {length} tokens and the model sees {context} at once, the "
                "answer among them; say it in fewer words"
            )
        forgotten = len(self.messages) + 1 - len(kept)
        self.messages = kept
        return forgotten

    def answer(self) -> Generator[str]:
        """The assistant's answer, piece by piece. What was drawn so far is kept if it stops.

        A question that got no words is taken back: an empty turn would teach nobody anything.
        """
        said: list[str] = []
        number = -1
        request = Request(messages=list(self.messages), sampling=self.sampling)
        try:
            # Always the first copy: with the same seed the same question gets the same answer.
            number = self._engine.submit(request, copy=0)
            while self._engine.unfinished:
                for piece in pieces(self._engine.step()):
                    said.append(piece)
                    yield piece
        except KeyboardInterrupt:  # in the midst of a step, whose engine nobody should trust
            self._engine = Engine(self.model, self.tokenizer, batch_size=1)
            raise
        finally:
            self._engine.cancel(number)
            if words := "".join(said).strip():
                self.messages.append({"role": "assistant", "content": words})
            else:
                self.messages.pop()

    def use_adapter(self, name: str | None) -> None:
        """Let that adapter answer from now on, or the model without any; what was said stays."""
        use_adapter(self.model, name)
        self._engine = Engine(self.model, self.tokenizer, batch_size=1)

    def _length(self, messages: Sequence[Message]) -> int:
        return len(encode_chat(self.tokenizer, messages, generation_prompt=True).ids)


def converse(
    folder: Path, sampling: Sampling, seed: int | None = None, adapters: Sequence[Path] = ()
) -> None:
    """Talk until the person leaves. Input may be piped: then it is echoed, as in a transcript.

    Of several `adapters` on one base the first answers, until /adapter names another.
    """
    model, tokenizer = load(folder)
    if adapters:
        use_adapter(model, with_adapters(model, adapters, base=folder)[0])
        tokenizer = tokenizer_with(adapters[0], folder)
    conversation = Conversation(model, tokenizer, sampling)
    say(introduction(folder, model))
    if sampling.temperature == 0:
        say("It always takes the likeliest next token. /temperature 0.7 lets chance in.\n")
    for turn, line in enumerate(_lines()):
        if line.startswith("/"):
            if not _command(conversation, line):
                return
            continue
        # Fresh for every answer: the same question asked again gets another one.
        drawn = secrets.randbits(32) if seed is None else (seed + turn) % 2**63
        conversation.sampling = replace(conversation.sampling, seed=drawn)
        try:
            forgotten = conversation.ask(line)
        except UserError as error:
            say(f"({error})")
            continue
        if forgotten:
            say(f"(the oldest {forgotten} messages no longer fit into its memory: forgotten)")
        _stream_answer(conversation.answer())


def _stream_answer(pieces: Generator[str]) -> None:
    # Closed in any case, for then the conversation keeps what was said.
    with contextlib.closing(pieces) as answer:
        try:
            empty = True
            for piece in answer:
                _write(piece)
                empty = empty and not piece.strip()
            _write("(no words)\n\n" if empty else "\n\n")
        except KeyboardInterrupt:
            _write(" … (stopped)\n\n")


def _lines() -> Iterator[str]:
    """What the person types, without empty lines."""
    at_terminal = sys.stdin.isatty()
    if at_terminal:
        import readline  # noqa: F401 (gives input() editing and history)
    elif hasattr(sys.stdin, "reconfigure"):
        sys.stdin.reconfigure(encoding="utf-8", errors="replace")
    while True:
        try:
            line = input("> ").strip()
        except EOFError:
            _write("\n")
            return
        except KeyboardInterrupt:
            _write("\n(Ctrl-D or /quit leaves)\n")
            continue
        if not at_terminal:
            _write(f"{line}\n")
        if line:
            yield line


# Commands.


def _command(conversation: Conversation, line: str) -> bool:
    """Do what a line that begins with a slash asks for; False if it is to leave."""
    name, _, argument = line.partition(" ")
    if name in ("/quit", "/exit"):
        return False
    try:
        say(_commanded(conversation, name, argument.strip()))
    except UserError as error:
        say(f"({error})")
    except OSError as error:
        say(f"({in_words(error)})")
    return True


def _commanded(conversation: Conversation, name: str, argument: str) -> str:
    commands: dict[str, Callable[[], str]] = {
        "/reset": lambda: _reset(conversation),
        "/save": lambda: _save(conversation, argument),
        "/temperature": lambda: _temperature(conversation, argument),
        "/adapter": lambda: _adapter(conversation, argument),
        "/help": lambda: HELP,
    }
    if name not in commands:
        raise UserError(f"{name} is no command; {known_names(name, commands, 'there are')}")
    return commands[name]()


def _reset(conversation: Conversation) -> str:
    conversation.messages.clear()
    return "(a new conversation)"


def _save(conversation: Conversation, argument: str) -> str:
    if not argument:
        raise UserError("name a file: /save talk.jsonl")
    if not conversation.messages:
        raise UserError("nothing has been said yet")
    path = Path(argument).expanduser()
    with naming(path), path.open("a", encoding="utf-8") as file:
        file.write(json.dumps({"messages": conversation.messages}, ensure_ascii=False) + "\n")
    return f"({len(conversation.messages)} messages appended to {path})"


def _temperature(conversation: Conversation, argument: str) -> str:
    if argument:
        try:
            value = float(argument)
        except ValueError:
            raise UserError(
                f"temperature={argument!r} must be a number; try /temperature 0.7"
            ) from None
        conversation.sampling = replace(conversation.sampling, temperature=value)
    return f"(temperature {conversation.sampling.temperature:g})"


def _adapter(conversation: Conversation, argument: str) -> str:
    names = adapter_names(conversation.model)
    if not names:
        raise UserError("the model has no adapters; groundup chat MODEL --adapter DIR puts one on")
    if argument:
        conversation.use_adapter(None if argument == "none" else argument)
    active = active_adapter(conversation.model) or "none"
    return f"(adapter {active}; there are {', '.join([*names, 'none'])})"


# What the model is.


def introduction(folder: Path, model: CausalLM) -> str:
    """What one should know before talking to it, from the records of the runs that made it."""
    runs = _history(folder)
    known = f"You are talking to {folder}, {model.config.parameters / 1e6:.1f} million parameters"
    if runs:
        start = "random weights" if runs[0].stage == "pretrain" else "another model"
        tokens, seconds = sum(run.tokens for run in runs), sum(run.seconds for run in runs)
        duration = f"{seconds / 60:.0f} minutes" if seconds >= 90 else f"{seconds:.0f} seconds"
        known += (
            f", trained from {start} on {tokens:,} tokens in {duration} "
            f"({', then '.join(run.stage for run in runs)})"
        )
    paragraphs = [
        f"{known}.",
        "It is a small program that continues text with what is likely. It is not a person, it "
        "knows little, and it makes things up: check whatever it says.",
    ]
    if runs and runs[-1].stage == "pretrain":
        paragraphs.append(
            "This one was never taught to answer (groundup sft does that), so it rambles."
        )
    if runs and runs[-1].stage != "pretrain" and runs[-1].world:
        paragraphs += ["Try one of these:", *(f"  {asked}" for asked in _SUGGESTIONS)]
    paragraphs.append("/help shows what else you can do; Ctrl-D leaves.")
    width = shutil.get_terminal_size().columns
    return "\n".join(textwrap.fill(text, min(100, width)) for text in paragraphs) + "\n"


@dataclass(frozen=True)
class _Past:
    stage: str
    tokens: int
    seconds: float
    world: bool


def _history(folder: Path) -> list[_Past]:
    """The training runs that led to a model, the first one first; none for a stranger's model."""
    runs: list[_Past] = []
    seen: set[Path] = set()
    while is_kept(folder / "run.json") and folder.resolve() not in seen:
        seen.add(folder.resolve())
        try:
            about = read_run(folder)
            steps = [s for s in read_metrics(folder / "metrics.jsonl") if s["kind"] == "train"]
            tokens = steps[-1]["tokens"] if steps else 0
            runs.append(
                _Past(
                    about["stage"],
                    tokens,
                    sum(step["seconds"] for step in steps),
                    _has_world(folder, about),
                )
            )
            parent = Path(about["parents"]["model"]["path"])
        except (OSError, UserError, KeyError):
            break
        # A recipe's folder may have been moved since; its runs still lie side by side.
        folder = parent if parent.is_dir() else folder.parent / parent.name
    return runs[::-1]


def _has_world(folder: Path, about: Mapping[str, Any]) -> bool:
    """Whether a run's data holds the generated small world."""
    if "data" not in about["parents"]:  # a pack or a data set of the hub
        return False
    data = Path(about["parents"]["data"]["path"])
    data = data if data.is_dir() else folder.parent / data.name
    with contextlib.suppress(UserError):  # what lies in a person's own data.json is none of ours
        return read_json_object(data / "data.json").get("world") is not None
    return False


def _write(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()
