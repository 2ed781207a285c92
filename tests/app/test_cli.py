"""The command line as users see it: real processes where the process matters."""

from __future__ import annotations

import itertools
import json
import os
import pty
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from groundup.app import process
from groundup.app.cli import _set_environment, main
from groundup.app.journey import _print_next_steps, next_step
from groundup.app.recipe import read_recipe
from groundup.app.settings import _ELSEWHERE
from groundup.app.stages import EXPERIMENTS, STAGES
from groundup.data.config import DataConfig
from groundup.data.files import ROW_KINDS
from groundup.data.packs.manifest import (
    IMAGES,
    LEXICONS,
    SETS,
    DataSet,
    GeneratedSet,
    every_set,
    find_set,
)
from groundup.data.records import read_conversations
from groundup.train.config import ENVIRONMENT, TrainingConfig
from groundup.train.ranges import ranges
from groundup.train.remembered import save_settings
from miniature import write_miniature
from preloaded import Process
from pseudo_terminal import Terminal

COMMANDS = ["quickstart", "run", "data", "tokenizer", "pretrain", "sft", "dpo", "eval"]
COMMANDS += ["generate", "chat", "label", "experiment", "studio", "xray"]
DATA_COMMANDS = ["data list", "data show", "data pull", "data build", "data inspect"]


@dataclass(frozen=True)
class Journey:
    """A finished run of the miniature recipe, and its output."""

    folder: Path
    said: str

    @property
    def base(self) -> Path:
        return self.folder / "base"

    @property
    def talker(self) -> Path:
        return self.folder / "again"


@pytest.fixture(scope="session")
def journey(tmp_path_factory: pytest.TempPathFactory) -> Journey:
    folder = tmp_path_factory.mktemp("journey")
    code, said = program("run", str(write_miniature(folder)), "--out", str(folder / "out"))
    assert code == 0, said
    return Journey(folder / "out", said)


def program(*words: str, typed: str = "", **changes: str) -> tuple[int, str]:
    """The exit code and the output of `groundup WORDS`."""
    command = [sys.executable, "-m", "groundup", *words]
    return Process(command, typed, **{"COLUMNS": "80"} | changes).communicate(timeout=120)


# Help.


def test_help_answers_fast() -> None:
    """Its time is that of its imports; seconds depend on the machine."""
    code = (
        "import sys; before = len(sys.modules)\n"
        "from groundup.app.cli import main\n"
        "assert main(['--help']) == 0\n"
        "print(len(sys.modules) - before)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0 and "quickstart" in done.stdout, done.stderr
    assert int(done.stdout.split()[-1]) < 250


def test_help_does_not_import_torch() -> None:
    code = (
        "import sys; from groundup.app.cli import main\n"
        "for command in sys.argv[1:]:\n"
        "    assert main([*command.split(), '--help']) == 0, command\n"
        "    loaded = {'torch', 'numpy', 'markdown_it'} & set(sys.modules)\n"
        "    assert not loaded, (command, loaded)\n"
    )
    commands = ["", *COMMANDS, *DATA_COMMANDS]
    done = subprocess.run([sys.executable, "-c", code, *commands], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    usages = re.findall(r"^Usage: groundup *([a-z ]*)", done.stdout, flags=re.M)
    assert [usage.strip() for usage in usages] == commands


def test_no_line_of_help_is_wider_than_the_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    for command in ("", *COMMANDS, *DATA_COMMANDS):
        assert main([*command.split(), "--help"]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert max(map(len, lines)) <= 80, (command, max(lines, key=len))


def test_a_non_ascii_name_is_not_reported_as_damaged(tmp_path: Path) -> None:
    name, ascii_only = os.fsencode(tmp_path / "für"), {"LC_ALL": "C", "PYTHONUTF8": "0"}
    done = subprocess.run(
        [sys.executable, "-m", "groundup", "generate", name, "hi"],
        capture_output=True,
        text=True,
        env=os.environ | ENVIRONMENT | {"PYTHONCOERCECLOCALE": "0"} | ascii_only,
        timeout=120,
    )
    assert done.returncode == 2 and "LC_ALL=C.UTF-8" in done.stderr, done.stderr
    assert "rename" not in done.stderr


@pytest.mark.parametrize("name", STAGES)
def test_every_setting_is_an_option_with_its_description(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "300")
    assert main([*STAGES[name].command.split(), "--help"]) == 0
    shown = capsys.readouterr().out
    text = " ".join(re.sub("[│╭╮╰╯─]", " ", shown).split())
    for field, info in STAGES[name].config.model_fields.items():
        if field in STAGES[name].config.unused:
            assert not re.search(rf"--{field.replace('_', '-')}(?![\w-])", text)
            continue
        assert f"--{field.replace('_', '-')}" in text
        assert " ".join((info.description or "").split()) in text
        if isinstance(info.default, int | float) and not isinstance(info.default, bool):
            assert re.search(rf"[\[(]default: {re.escape(str(info.default))}[\])]", text)


def test_help_of_a_number_has_its_unit_and_default(
    capsys: pytest.CaptureFixture[str],
) -> None:
    for stage in (*STAGES.values(), *EXPERIMENTS.values()):
        for name, field in stage.config.model_fields.items():
            said = field.description or ""
            # A limit of cost goes with a cost, and has none.
            if field.default is None and list(ranges(field)) and name != "cost_limit":
                assert "(default: " in said or name in stage.config.unused, (stage.name, name)
            if name == "minutes" and issubclass(stage.config, TrainingConfig):
                assert said.startswith("minutes that training may take")
            if name == "optimizer":
                assert "always use AdamW" in said

    def shown(*words: str) -> str:
        assert main([*words, "--help"]) == 0
        return " ".join(capsys.readouterr().out.split())

    sft, plan = shown("sft"), shown("plan").partition(" Parameters ")[2]
    assert "share of the steps spent warming up [0 to 1] [default: 0.02]" in sft
    assert (
        sft.count("[0 to ") > 5 and "dropped [0 to below 1]" in sft and "peak learning rate" in sft
    )
    assert "group [0 to 1] [default: 0.5]" in shown("data", "show")
    assert "most likely token's probability [0 to 1]" in shown("chat")
    assert "the same text (default: 0)" in shown("generate")
    for option in ("minutes", "steps", "depth", "width", "context", "rows"):
        told = plan.partition(f"--{option} ")[2].partition(" --")[0]
        assert "(default: " in told, option


def test_help_names_an_option_as_it_is_typed() -> None:
    for stage in (*STAGES.values(), *EXPERIMENTS.values()):
        fields = stage.config.model_fields
        for name, field in fields.items():
            said = {*re.findall(r"\w+", field.description or "")}
            assert not {one for one in fields if "_" in one} & said, (stage.name, name)


def test_help_says_what_force_does_to_a_folder(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", "--help"]) == 0
    assert "--force write into a folder that holds other files" in " ".join(
        capsys.readouterr().out.split()
    )


def test_help_says_which_commands_continue_after_a_stop(capsys: pytest.CaptureFixture[str]) -> None:
    training = [one.command for one in STAGES.values() if issubclass(one.config, TrainingConfig)]
    assert "pretrain" in training
    for command in ("quickstart", "run", *training):
        assert main([*command.split(), "--help"]) == 0
        shown = " ".join(capsys.readouterr().out.split())
        assert "stop it at any moment; the same command resumes it" in shown
        assert ("Finished stages are skipped." in shown) == (command in ("quickstart", "run"))


def test_no_experiment_states_a_time_for_unknown_machines() -> None:
    for one in EXPERIMENTS.values():
        said = " ".join(one.more)
        assert "At most" not in said
        assert "minutes" not in said or "About" in said or "about as long as" in said


@pytest.mark.parametrize(
    ("typed", "meant"),
    [("pre", "pretrain"), ("inspect", "data inspect"), ("data insp", "inspect"), ("evl", "eval")],
)
def test_an_unknown_command_suggests_one(
    typed: str, meant: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(typed.split()) == 2
    assert f'Did you mean "{meant}"?' in capsys.readouterr().err


@pytest.mark.parametrize(
    ("command", "typed", "said"),
    [
        ("sft", "--batch-size 8", "use --rows: rows of one context each in an optimizer step"),
        ("sft", "--per-device-train-batch-size=2", "use --micro-rows: rows in one forward and"),
        ("sft", "--lr 1e-4", "use --learning-rate: peak learning rate of the matrices"),
        ("sft", "--num_train_epochs 3", "use --epochs: passes over the data"),
        ("sft", "--load-in-4bit", "use --adapter: what is trained: none, the whole model"),
        ("pretrain", "--n-layer 6", "use --depth: "),
        ("grpo", "--num-generations 8", "use --group-size: "),
        ("grpo", "--beta 0.1", "use --kl-coef: KL coefficient: penalty for each nat"),
        ("grpo", "--num-iterations 2", "use --epochs-per-iteration: passes over the answers"),
        ("pretrain", "--num-iterations 2", "use --steps: optimizer steps"),
        ("dpo", "--loss-type ipo", "use --loss: sigmoid: DPO; ipo: a target margin"),
        ("grpo", "--batch-size 2", ""),  # its rows follow from the episodes
        ("eval core", "--max-length 9", ""),
        ("sft", "--warm 0.1", ""),
    ],
)
def test_options_of_other_trainers_lead_to_ours(
    command: str, typed: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    required = {
        "sft": "m --data d",
        "dpo": "m --data d",
        "pretrain": "--data d --tokenizer t",
        "grpo": "m --reward sum --prompts p",
        "eval core": "m",
    }[command]
    assert main([*command.split(), *required.split(), *typed.split()]) == 2
    given = typed.replace("=", " ").split()[0]
    begin = f"error: {given} is no option here; {said}" if said else f"Unknown option: {given}."
    assert begin in " ".join(capsys.readouterr().err.split())


def test_every_setting_of_other_trainers_is_one_of_ours() -> None:
    names = {name for stage in STAGES.values() for name in stage.config.model_fields}
    assert set(_ELSEWHERE) <= names
    assert all(ours not in others.split() for ours, others in _ELSEWHERE.items())


def test_help_lists_every_supported_file_type(capsys: pytest.CaptureFixture[str]) -> None:
    listed = [
        field.description
        for stage in (*STAGES.values(), *EXPERIMENTS.values())
        for field in stage.config.model_fields.values()
        if ".jsonl" in (field.description or "")
    ]
    assert len(listed) > 5
    assert not [said for said in listed if ROW_KINDS not in str(said)]
    for command in ("generate", "label"):
        assert main([command, "--help"]) == 0
        assert ROW_KINDS in " ".join(capsys.readouterr().out.split())


def test_bash_completion_has_the_commands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert main(["--install-completion", "--shell", "bash"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    [script] = [path for path in tmp_path.rglob("groundup") if path.is_file()]
    assert str(script) in said and str(tmp_path / ".bashrc") in said
    # The line in .bashrc completes half a word with the commands.
    asked = (
        f"source {tmp_path / '.bashrc'}; set -- $(complete -p groundup)\n"
        'COMP_WORDS=(groundup quick) COMP_CWORD=1; "${@: -2:1}"; printf "%s " "${COMPREPLY[@]}"'
    )
    offered = subprocess.run(["bash", "-c", asked], capture_output=True, text=True)
    assert offered.stdout.split() == ["quickstart"], offered.stderr
    monkeypatch.setenv("HOME", str(tmp_path / "none"))
    assert main(["--install-completion", "--shell", "bash"]) == 2
    assert "does not exist" in capsys.readouterr().err and not (tmp_path / "none").exists()
    assert main(["--install-completion", "--shell", "csh"]) == 2
    told = capsys.readouterr().err
    assert '"csh"' in told and '"zsh"' in told and told.count("\n") == 1


def test_version_and_bare_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert re.fullmatch(r"\d+\.\d+\.\d+\n", capsys.readouterr().out)
    assert main([]) == 0
    assert "quickstart" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["stf"], '"sft"'),
        (["inspect", "x"], '"data inspect"'),
        (["quickstart", "--minuts", "3"], "--minutes"),
        (["quickstart", "--minutes", "soon"], "--minutes"),
        (["quickstart", "--minutes", "0"], "at least 0.001"),
        (["quickstart", "--minutes", "nan"], "at least 0.001"),
        (["sft"], "MODEL is missing"),
        (["pretrain", "--data", "x"], "--tokenizer is missing"),
        (["pretrain", "--data", "x", "--tokenizer", "x", "--depth", "1.5"], "a whole number"),
        (["sft", "x", "--data", "x", "--rows", "2.5"], "--rows='2.5' must be a whole number"),
        (["sft", "x", "--data", "x", "--mixture", "{world=1}"], "--mixture.world 0.9"),
        (["sft", "x", "--data", "x", "--mixture.world", "a"], "--mixture.world='a' must be a"),
        (["generate", "x", "--template", "x"], "such as --template.enable_thinking false"),
        (["sft", "x", "--data", "x", "--template", "x"], "--template.enable_thinking false"),
        (["pretrain", "--data", "x", "--mixture.world", "0.7"], "--mixture.world lacks a value"),
        (["tokenizer", "x", "--vocab-size", "7"], "--vocab-size"),
        (["data", "pull", "wikki"], "'wiki'"),
        (["data", "show", "wold"], "'world'"),
        (["data", "show"], "NAME is missing"),
        (["data", "show", "world", "-n", "0"], "--number=0 must be at least 1"),
        (["data", "show", "world", "--bias", "2"], "--bias=2 must be at most 1"),
        (["data", "show", "world", "--seed", "-1"], "--seed=-1 must be at least 0"),
        (["run", "quikstart"], "'quickstart'"),
        (["eval", "reprot", "x"], "report"),
        (["chat", "nowhere"], "'nowhere'"),
        (["generate"], "MODEL is missing"),
        (
            ["chat", "model", "--mine", "nowhere"],
            "not a learner's folder (progress.json); give one: ",
        ),
        (["chat", "smollm2"], "did you mean 'pack:smollm2'?"),
        (["chat", "Qwen/Qwen2.5-0.5B"], "a model on Hugging Face's hub is hub:Qwen/Qwen2.5-0.5B"),
        (["chat", ""], "MODEL='' is empty"),
        (["label", "", "x", "--prompts", "x"], "MODEL='' is empty"),
        (["generate", "x", "a", "--stop", "b", "--stop", ""], "--stop='' must not be empty"),
    ],
)
def test_a_typo_gets_one_line_and_the_nearest_name(
    words: list[str],
    told: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x").write_text("text")
    assert main(words) == 2
    shown = capsys.readouterr()
    assert shown.err.startswith("error: ") and shown.err.count("\n") == 1
    assert told in shown.err
    assert os.listdir(tmp_path) == ["x"]


@pytest.mark.parametrize(
    ("model", "told"),
    [
        ("journy", "there is no model folder 'journy'; did you mean 'journey'?"),
        ("journey/bass", "there is no model folder 'journey/bass'; did you mean 'journey/base'?"),
        # Where the folder is there, the name is of it and of no repository.
        ("journey/zzzz", "there is no model folder 'journey/zzzz'; check its name\n"),
        ("journey/data", "'journey/data' is a folder of data; give the folder of a model"),
    ],
)
def test_a_misspelled_model_suggests_the_nearest(
    model: str,
    told: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("recipe.toml", "base/config.json", "data/conversations/train.jsonl"):
        (tmp_path / "journey" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "journey" / name).touch()
    assert main(["chat", model]) == 2
    assert told in capsys.readouterr().err


def test_a_name_cannot_control_the_terminal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "a\x1b[31mb"
    folder.mkdir()
    (folder / "config.json").write_text("{")
    assert main(["generate", str(folder), "hi"]) == 2
    assert "a\ufffd[31mb" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "environment", "told"),
    [
        (
            ["data", "list"],
            {"GROUNDUP_CACHE": "~no-such-user/x"},
            "GROUNDUP_CACHE='~no-such-user/x'",
        ),
        (["pretrain"], {"GROUNDUP_CACHE": "~no-such-user/x"}, "GROUNDUP_CACHE='~no-such-user/x'"),
        (["data", "list"], {"WORLD_SIZE": "abc"}, "WORLD_SIZE='abc' must be a whole number"),
        (["data", "list"], {"WORLD_SIZE": "0"}, "WORLD_SIZE='0' must be a whole number"),
    ],
)
def test_a_meaningless_variable_gets_one_line(
    words: list[str], environment: dict[str, str], told: str
) -> None:
    code, said = program(*words, **{"RANK": "0", "MASTER_ADDR": "x"} | environment)
    assert code == 2 and told in said and said.count("\n") == 1


# The process.


def test_training_restarts_with_its_environment_once() -> None:
    code = (
        "import os, sys; from groundup.app.cli import main\n"
        "print(os.environ.get('MALLOC_TOP_PAD_'), sys.argv[1:], flush=True)\n"
        "sys.exit(main())"
    )
    bare = {k: v for k, v in os.environ.items() if k not in ENVIRONMENT}
    command = [sys.executable, "-W", "error", "-c", code]

    def printed(*words: str) -> list[str]:
        done = subprocess.run([*command, *words], capture_output=True, text=True, env=bare)
        assert done.returncode == (0 if "--help" in words else 2)
        return [line for line in done.stdout.splitlines() if line.endswith(f"{[*words]}")]

    words = ["run", "no such.toml"]
    if sys.platform == "linux":
        assert printed(*words) == [f"None {words}", f"{ENVIRONMENT['MALLOC_TOP_PAD_']} {words}"]
        for words in (["best-of-n", "nowhere"], ["eval", "rewards", "nowhere"]):
            assert printed(*words)[1:] == [f"{ENVIRONMENT['MALLOC_TOP_PAD_']} {words}"]
    assert printed("generate", "nowhere", "x") == ["None ['generate', 'nowhere', 'x']"]
    for asking in (["sft", "--help"], ["best-of-n", "--help"], ["eval", "rewards", "--help"]):
        assert printed(*asking) == [f"None {asking}"]


def test_a_reader_that_leaves_gives_no_traceback() -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "groundup", "data", "list"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""


def test_ctrl_c_ends_with_130_and_a_message(tmp_path: Path) -> None:
    code = (
        "import sys, time, groundup.app.commands.data\n"
        "from groundup.app.cli import main\n"
        "def wait(): print('ready', flush=True); time.sleep(60)\n"
        "groundup.app.commands.data.data_list = wait\n"
        "sys.exit(main(['data', 'list']))"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=120)
    assert (process.returncode, said) == (130, "\nstopped\n")


def test_messages_of_a_stopped_run_fit_the_terminal() -> None:
    code = (
        "import sys, groundup.app.commands.data\n"
        "from groundup.app.cli import main\n"
        "def stop(): raise KeyboardInterrupt('stopped; the same command goes on from there')\n"
        "groundup.app.commands.data.data_list = stop\n"
        "sys.exit(main(['data', 'list']))"
    )
    terminal, inner = pty.openpty()
    ran = subprocess.run(
        [sys.executable, "-c", code], stderr=inner, env=os.environ | {"COLUMNS": "30"}
    )
    os.close(inner)
    lines = os.read(terminal, 10_000).decode().splitlines()
    os.close(terminal)
    assert ran.returncode == 130
    assert len(lines) > 2 and max(map(len, lines)) <= 30
    assert "goes on from there" in " ".join(" ".join(lines).split())


# Data by name.


def test_data_list_describes_each_set(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "list"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    for one in SETS:
        size = f"{one.size / 1e6:.1f} MB"
        size = f"{one.size / 1e3:.0f} KB" if size == "0.0 MB" else size
        assert f"{one.name} {size} {one.license}" in shown
        assert " ".join(one.citation.split()) in shown
    assert "world any size Apache-2.0 synthetic: made by a program" in shown
    assert f"downloads {downloads(every_set(), IMAGES, LEXICONS)} in total" in shown
    needed = map(find_set, DataConfig(out=Path()).packs)
    assert f"the quickstart needs {downloads(needed).replace('files', 'of them')})" in shown


def downloads(*packs: Iterable[DataSet]) -> str:
    """The files of the packs, and their megabytes."""
    sizes = {
        one.archive.filename: one.archive.size
        for one in itertools.chain(*packs)
        if not isinstance(one, GeneratedSet)
    }
    return f"{len(sizes)} files ({sum(sizes.values()) / 1e6:.0f} MB"


def test_data_show_prints_readable_samples(
    capsys: pytest.CaptureFixture[str],
) -> None:
    def shown(*words: str) -> str:
        assert main(["data", "show", *words]) == 0
        return capsys.readouterr().out

    world = shown("world")
    heads = [line for line in world.splitlines() if line.startswith("──")]
    kinds = [head.split()[-2] for head in heads]
    assert kinds == ["document", "conversation", "preference", "document", "conversation"]
    assert all(head.split()[1].startswith("world-") for head in heads)
    assert max(map(len, world.splitlines())) <= 100
    assert world == shown("world", "--seed", "0", "-n", "5") != shown("world", "--seed", "3")
    assert shown("world", "--heldout", "-n", "1").startswith("── world-stories · document")
    assert shown("chatterbot", "-n", "1").split() == (
        ["──", "chatterbot", "·", "conversation", "──", "user:", "Hello.", "assistant:", "Hi."]
    )


def test_data_show_rejects_a_setting_of_another_set(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "show", "world", "-n", "1", "--bias", "0.9"]) == 0
    assert main(["data", "show", "chatterbot", "-n", "1", "--bias", "0.9"]) == 2
    assert "--bias applies to the set world" in capsys.readouterr().err


def test_inspecting_a_file_without_a_good_row_fails(
    journey: Journey, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, row = tmp_path / "rows.jsonl", {"prompt": "Where is it?", "completion": "There."}
    words = ["data", "inspect", str(file), "--model", str(journey.talker)]
    file.write_text(json.dumps(row) + "\n")
    assert main(words) == 0
    file.write_text('{"a": 1}\n{"a": 2}\n')
    capsys.readouterr()
    assert main(words) == 2
    shown = capsys.readouterr()
    assert "There is nothing here to train on." in shown.out and "line 2: unknown" in shown.out
    assert "rows.jsonl has no row to train on" in shown.err


def test_a_file_is_inspected_with_the_row_length_of_fine_tuning(
    journey: Journey, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(journey.talker, tmp_path / "model")
    described = json.loads((tmp_path / "model" / "config.json").read_text())
    described["max_position_embeddings"] = 2048
    (tmp_path / "model" / "config.json").write_text(json.dumps(described))

    def context(answer: str, *words: str) -> int:
        row = {"prompt": "Where is it?", "completion": answer}
        (tmp_path / "rows.jsonl").write_text(json.dumps(row) + "\n")
        file, model = str(tmp_path / "rows.jsonl"), str(tmp_path / "model")
        assert main(["data", "inspect", file, "--model", model, *words]) == 0
        shown = " ".join(capsys.readouterr().out.split())
        return int(re.findall(r"reads it in ([\d,]+) tokens", shown)[0].replace(",", ""))

    assert context("There.") == 256
    assert 256 < context("\u4e00" * 100) < 1024 == context("\u4e00" * 2000)
    assert context("There.", "--context", "512") == 512


def test_data_pull_lists_what_it_fetched(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "pull", "chatterbot"]) == 0
    assert "chatterbot: in the cache" in capsys.readouterr().out
    assert main(["data", "pull", "world"]) == 0
    assert capsys.readouterr().out == ("world: generated on this machine, nothing to download\n")


# Generating.


def test_generate_continues_text(journey: Journey, capsys: pytest.CaptureFixture[str]) -> None:
    base = str(journey.base)
    options = ["--max-new-tokens", "8", "--temperature", "0"]
    assert main(["generate", base, "The sea is", *options]) == 0
    streamed = capsys.readouterr().out
    assert streamed.startswith("The sea is") and len(streamed) > len("The sea is\n")
    assert main(["generate", base, "The sea is", "The sun", *options]) == 0
    assert capsys.readouterr().out.startswith(streamed + "\nThe sun")


@pytest.mark.skipif(torch.cuda.is_available(), reason="asks for a device that is not there")
def test_models_use_the_requested_device(
    journey: Journey, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sft, prompts = str(journey.talker), tmp_path / "prompts.txt"
    prompts.write_text("The sea\n")
    for command in (
        ["generate", sft, "The sea"],
        ["generate", sft, "--prompts", str(prompts)],
        ["chat", sft],
        ["label", sft, "--prompts", str(prompts), "--out", str(tmp_path / "votes.jsonl")],
    ):
        assert main([*command, "--device", "cuda"]) == 2
        assert "device='cuda' is not available on this machine" in capsys.readouterr().err


def test_generate_reads_standard_input(
    journey: Journey, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("generate", str(journey.base), "--max-new-tokens", "4")
    code, said = program(*words, typed="The sea is\n")
    assert code == 0 and said.startswith("The sea is")
    code, said = program(*words)
    assert code == 2 and "no prompt" in said
    with open(os.devnull) as nothing:
        monkeypatch.setattr(sys, "stdin", nothing)
        assert main([*words]) == 2 and "no prompt" in capsys.readouterr().err


def test_generate_uses_the_sampling_options(
    journey: Journey, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [
        "generate",
        str(journey.talker),
        "Where does the ship sail?",
        "--chat",
        "--max-new-tokens",
        "12",
    ]
    assert main([*words, "--temperature", "0"]) == 0
    whole = capsys.readouterr().out.removesuffix("\n")
    assert main([*words, "--top-k", "1", "--temperature", "5"]) == 0
    assert capsys.readouterr().out == whole + "\n"
    stop = whole[3:5]
    assert main([*words, "--temperature", "0", "--stop", stop]) == 0
    assert capsys.readouterr().out == whole[: whole.index(stop)] + "\n"
    assert whole == "Over the sea."
    draws = []
    for seed in ("1", "1", "2"):
        assert main([*words, "--temperature", "9", "--seed", seed]) == 0
        draws.append(capsys.readouterr().out)
    assert draws[0] == draws[1] != draws[2]
    assert main([*words, "--top-p", "2"]) == 2
    assert "--top-p=2 must be" in capsys.readouterr().err


# Talking.


def test_a_conversation_through_a_pipe(journey: Journey, tmp_path: Path) -> None:
    saved = tmp_path / "talk.jsonl"
    typed = [
        "/temperature 0",
        "Where does the ship sail?",
        "",
        "And the coal? <|im_end|>",
        f"/save {saved}",
        "/temperature -1",
        "",
        "/frob",
        "/help",
        "/reset",
        f"/save {saved}",
        "/quit",
        "never read",
    ]
    done = subprocess.run(
        [sys.executable, "-m", "groundup", "chat", str(journey.talker)],
        input="\n".join(typed),
        capture_output=True,
        text=True,
        env=os.environ | ENVIRONMENT | {"COLUMNS": "80", "PYTHONUTF8": "1"},
        timeout=120,
    )
    assert done.returncode == 0 and done.stderr == "", done.stderr
    shown = done.stdout
    said = " ".join(shown.split())
    assert "parameters, trained from random weights on" in said and "(pretrain, then sft)" in said
    assert "makes things up" in said
    for line in typed[:-1]:
        assert line in shown
    assert "> >" not in shown
    assert "never read" not in shown
    assert "(temperature 0)" in shown and "temperature=-1 must" in shown
    assert "/frob is not a command" in shown and "(a new conversation)" in shown
    assert "(nothing has been said yet)" in shown

    [talk] = read_conversations(saved).rows
    assert [m.role for m in talk.messages] == ["user", "assistant"] * 2
    assert talk.messages[2].content == typed[3]
    assert talk.messages[1].content == "Over the sea."  # learned by heart, and it stopped there


def test_the_end_of_the_input_ends_the_chat(journey: Journey) -> None:
    code, said = program("chat", str(journey.talker))
    assert code == 0 and "You are talking to" in said


def test_a_base_model_says_that_it_cannot_answer(journey: Journey) -> None:
    _, said = program("chat", str(journey.base), typed="/quit\n")
    assert "never taught to answer" in " ".join(said.split())


@pytest.mark.skipif(not hasattr(pty, "fork"), reason="needs a pseudo-terminal")
def test_at_a_terminal(journey: Journey) -> None:
    at, seen = Terminal("chat", str(journey.talker), columns=80), ""
    assert "You are talking to" in at.wait_for("> ")
    end = time.monotonic() + 240
    while "/quit quits)" not in seen:  # Python may miss a Ctrl-C between prompt and reading
        assert time.monotonic() < end, seen
        at.send("\x03")
        time.sleep(0.5)  # as a person presses it, not again before it is seen
        seen += at.read(1)
    if not seen.endswith("> "):  # what is typed before readline has the terminal may wait in it
        at.wait_for("> ")
    at.send("Where is it?\n")
    # Before each line readline asks the terminal to mark pastes.
    end_of_answer = "\r\n\r\n\x1b[?2004h> "
    assert len(at.wait_for(re.escape(end_of_answer))) > len(f"Where is it?{end_of_answer}")
    assert at.leave() == 0


# Stages.


def test_a_stage_accepts_a_recipe_s_folder_as_model_and_suggests_the_next_command(
    journey: Journey, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    words = ["sft", str(journey.folder), "--data", str(journey.folder.parent / "talks.jsonl")]
    words += ["--out", str(out), "--steps", "1", "--rows", "2", "--evaluations", "1"]
    assert main([*words, "--threads", "1", "--compile", "off", "--no-such"]) == 2
    assert not out.exists()
    capsys.readouterr()
    assert main([*words, "--threads", "1", "--compile", "off"]) == 0
    last = capsys.readouterr().out.rstrip().splitlines()[-1]
    assert last.startswith("Talk to it:") and last.endswith(f"groundup chat {out}")
    run = json.loads((out / "run.json").read_text())
    assert run["config"]["model"] == str(journey.talker)


def test_a_recipe_run_ends_with_the_chat_command(journey: Journey) -> None:
    last = journey.said.rstrip().splitlines()[-1]
    assert last.startswith("Talk to it:") and last.endswith(f"groundup chat {journey.folder}")


def test_built_in_recipes_end_with_the_learn_command(
    journey: Journey, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _print_next_steps(read_recipe("quickstart"), tmp_path)
    words = [line.partition(":")[0] for line in capsys.readouterr().out.split("\n") if line]
    assert words == ["Report", "Learn how", "Talk to it"]
    assert "Learn how" not in journey.said
    assert re.match("Use it: .* ppo MODEL --reward", next_step(STAGES["reward"], tmp_path))


@pytest.mark.skipif(sys.platform != "linux", reason="only glibc is told before Python starts")
def test_an_experiment_keeps_variables_that_the_doctor_left_unset(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started = list[dict[str, str]]()
    monkeypatch.setattr("os.environ", {"GROUNDUP_CACHE": str(tmp_path)})
    monkeypatch.setattr(process, "restart", lambda: started.append(dict(os.environ)))
    save_settings({"environment": {"GOMP_SPINCOUNT": ""}})
    _set_environment("experiment")
    assert "GOMP_SPINCOUNT" not in started[0] and started[0]["OPENBLAS_NUM_THREADS"] == "1"
    assert "MALLOC_TOP_PAD_" in started[0]
