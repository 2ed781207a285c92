"""The command line: `groundup COMMAND`. The only place that parses arguments.

Each command is named here with its one line of help and lies in `commands`, which is imported when
a command is chosen: `groundup --help` loads next to nothing.

What a user gave wrong ends in one line on stderr and exit code 2, a check that fails in 1, Ctrl-C
in 130, and none in a traceback; a traceback is a bug of ours.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from cyclopts import App, CoercionError, CycloptsError, Group, MissingArgumentError

import groundup
from groundup.app import process
from groundup.errors import CheckFailed, UserError

DIFFERS, WRONG_INPUT, BROKEN_PIPE = 1, 2, 141
# What trains wants the memory allocator and the threads set up before Python starts.
TRAINING = frozenset({"quickstart", "run", "pretrain", "sft", "dpo", "experiment"})

_JOURNEYS = Group("Whole journeys", sort_key=1)
_STAGES = Group("Stages, each a command of its own", sort_key=2)
_MODELS = Group("Using a model", sort_key=3)
_UNDERSTANDING = Group("Understanding", sort_key=4)
_ABOUT = Group("About", sort_key=5)
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
experiment = App(
    name="experiment",
    help="Measured answers to questions of the road, each with a table, plots and a page.",
    group=_UNDERSTANDING,
)
app.command(data)
app.command(experiment)
app["--help"].group = app["--version"].group = _ABOUT
app.command(
    "groundup.app.commands:install_completion",
    name="--install-completion",
    group=_ABOUT,
    help="Let the shell complete commands and options: bash, zsh or fish.",
)


def _add(
    to: App,
    function: str,
    name: str,
    group: Group | None,
    help: str,
    *more: str,
    usage: str | None = None,
) -> None:
    """Name a command; its function in `commands` is imported when it is chosen.

    `usage` is for one that takes several words, which the parser would call ARGS.
    """
    page = "\n\n".join([help, *more])
    place = len(list(to))  # in the order in which they are added, not the alphabet's
    line = None if usage is None else f"Usage: groundup {usage}"
    to.command(
        f"groundup.app.commands:{function}",
        name=name,
        group=group,
        help=page,
        sort_key=place,
        usage=line,
    )


_add(
    app,
    "quickstart",
    "quickstart",
    _JOURNEYS,
    "From downloaded text to a model that chats, with a report.",
    "Prepares data, trains a tokenizer, pre-trains a model, teaches it to answer, aligns it to "
    "preferences and measures it.",
    _RESUMES,
)
_add(app, "run", "run", _JOURNEYS, "Run a recipe: a journey of your own in a TOML file.", _RESUMES)
_add(app, "tokenizer", "tokenizer", _STAGES, "Train a byte-level BPE tokenizer.")
_add(app, "pretrain", "pretrain", _STAGES, "Train a language model from nothing on documents.")
_add(
    app,
    "sft",
    "sft",
    _STAGES,
    "Fine-tune a model on conversations or texts: whole, or an adapter.",
    "Conversations teach it to answer; documents (text, Markdown) go on with its pre-training. "
    "--adapter lora trains small matrices beside it, qlora the same beside weights of 4 bits.",
    _RESUMES,
)
_add(app, "dpo", "dpo", _STAGES, "Align a model to preferences (direct preference optimisation).")
_add(
    app,
    "evaluate",
    "eval",
    _STAGES,
    "Measure models: the report, the core suite, what fine-tuning brought, or lm-eval.",
    "The report on a whole journey: groundup eval quickstart/base quickstart/sft quickstart/dpo "
    "--data quickstart/data. It measures the data folder's held-out side, so it needs the one that "
    "the models were trained on.",
    "Any model, a stranger's too: groundup eval pack:smollm2 --suite core.",
    "A model that was fine-tuned on a domain: groundup eval BEFORE AFTER --suite tuning --data "
    "my.jsonl.",
    usage="eval [OPTIONS] MODELS...",
)
_add(
    app,
    "generate",
    "generate",
    _MODELS,
    "Continue a text, or answer with --chat.",
    "One prompt is written out as it is drawn; of several, each completion follows its prompt.",
    usage="generate [OPTIONS] MODEL [PROMPTS...]",
)
_add(app, "chat", "chat", _MODELS, "Talk with a model at the terminal.")
_add(
    app,
    "export",
    "export",
    _MODELS,
    "Write a model for llama.cpp and Ollama (GGUF), or as a Hugging Face folder.",
    "The copy is read back and compared with the model. A GGUF comes with a Modelfile: "
    "ollama create NAME -f Modelfile.",
)
_add(
    app,
    "verify",
    "verify",
    _MODELS,
    "Prove that a model answers the same however it is asked, and its copies as it does.",
    "Compares reading at once and through the cache, alone and in a batch, here and in "
    "transformers, text and ids, the folder and its GGUF. Exit code 1 says that something differs.",
)
_add(
    data,
    "data_list",
    "list",
    None,
    "Show the data sets that can be had by name.",
    "A real one comes in a wheel from the Python package index; nothing in it is installed or run.",
)
_add(data, "data_show", "show", None, "Print samples of a data set.")
_add(
    data,
    "data_inspect",
    "inspect",
    None,
    "Show what a model would make of your own data: counts, faults, and the very tokens.",
    usage="data inspect [OPTIONS] FILES...",
)
_add(
    data,
    "data_pull",
    "pull",
    None,
    "Download data sets or models into the cache, to work offline.",
    usage="data pull [NAMES...]",
)
_add(data, "data_build", "build", None, "Clean, split and check data sets: the data stage.")
_add(
    experiment,
    "experiment_perceptron",
    "perceptron",
    None,
    "What can one neuron learn, and what takes a layer of them?",
)
_add(
    experiment,
    "experiment_initialization",
    "initialization",
    None,
    "What goes wrong in a deep network whose weights begin too small or too large?",
)
_add(
    experiment,
    "experiment_optimizer_race",
    "optimizer-race",
    None,
    "Which optimizer is fastest on the same network, each at its best learning rate?",
)
_add(
    experiment,
    "experiment_ladder",
    "ladder",
    None,
    "From counting to GPT: what does each rung of language models gain on one text?",
)
_add(
    experiment,
    "experiment_planted_bias",
    "planted-bias",
    None,
    "Does a fairness measure find the bias that was planted, and does alignment lower it?",
)
_add(
    experiment,
    "experiment_quantization",
    "quantization",
    None,
    "What do 16, 8 and 4 bits a weight cost, in error and in perplexity?",
)
# The spelling of earlier releases, for one release more.
for _name in ("initialization", "quantization"):
    experiment.command(
        f"groundup.app.commands:experiment_{_name}",
        name=_name.replace("ization", "isation"),
        show=False,
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return the exit code. Without `arguments`, those of this process."""
    if arguments is None:
        process.prepare()
        arguments = sys.argv[1:]
        if arguments and arguments[0] in TRAINING and not _asks_only(arguments):
            _set_environment(arguments[0])
    try:
        with process.interruptible():
            return _ended(arguments)
    except process.OutputError as error:
        process.discard_output()
        # Whoever read us has gone, as in `groundup data list | head -1`.
        return BROKEN_PIPE if error.reader_left else _complain(str(error))
    except KeyboardInterrupt:  # once more, while the first was being told of
        return process.INTERRUPTED


def _ended(arguments: Sequence[str]) -> int:
    """Run the command; the exit code, with why on standard error."""
    try:
        app(arguments)
        sys.stdout.flush()
    except UserError as error:
        return _complain(str(error))
    except CheckFailed as error:
        _complain(str(error))
        return DIFFERS
    except CycloptsError as error:
        return _complain(_misread(error))
    except KeyboardInterrupt as stopped:
        print(f"\n{str(stopped) or 'stopped'}", file=sys.stderr)
        return process.INTERRUPTED
    except Exception as error:
        from groundup.runs.files import in_words, os_error

        # Libraries have errors of their own for what the system refuses.
        refused = os_error(error)
        if refused is None:
            raise
        return _complain(in_words(refused))
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
    if isinstance(error, CoercionError) and error.argument is not None and error.token is not None:
        why = _no_number(error) or why
    why = why if len(why) <= 2000 else f"{why[:1000]} …"
    return f"{why} See: {' '.join(['groundup', *(error.command_chain or ())])} --help"


def _no_number(error: CoercionError) -> str | None:
    """What an option must be that was given no number, or none of its kind."""
    from groundup.train.ranges import ranges

    assert error.argument is not None and error.token is not None
    name = error.argument.name
    found = next(ranges(error.argument.field_info.annotation), None)
    if found is None:
        return None
    kind = "a whole number" if found.kind is int else "a number"
    rule = found.rule()
    return f"{name}={error.token.value[:50]!r} must be {kind}{', ' if rule else ''}{rule}."


def _set_environment(command: str) -> None:
    """Start this command over with what the C library reads before Python starts.

    That the variables are set is also how the second start knows that it is one.
    """
    if "CS_GNU_LIBC_VERSION" not in getattr(os, "confstr_names", {}):
        return
    from groundup.train.config import ENVIRONMENT, NUMPY_ENVIRONMENT

    wanted = NUMPY_ENVIRONMENT if command == "experiment" else ENVIRONMENT
    unset = {name: value for name, value in wanted.items() if name not in os.environ}
    if unset and sys.executable:
        os.environ.update(unset)
        process.restart()


def _asks_only(arguments: Sequence[str]) -> bool:
    """Whether the command only tells of itself."""
    return any(word in ("--help", "-h") for word in arguments)
