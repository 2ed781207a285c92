"""A learner's passed parts, and only those, are inserted into groundup."""

from __future__ import annotations

import json
import re
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from full_disks import small_disk
from groundup.app.cli import app, main
from groundup.app.learn import show_road
from groundup.data.config import TokenizerConfig
from groundup.errors import UserError
from groundup.experiments.config import PerceptronConfig
from groundup.learn.exercise import Exercise
from groundup.learn.mine import mine
from groundup.learn.own import Own, part_hash
from groundup.learn.road import find, road
from groundup.runs import request
from groundup.runs.files import file_hash, read_lines
from groundup.runs.folder import Run
from groundup.runs.request import read_run
from pseudo_terminal import Terminal

if TYPE_CHECKING:
    from conftest import Workshop

CHAIN, DESCENT, MATRICES, LAYER = map(find, ("1.2", "1.3", "1.4", "layer"))


@pytest.fixture
def own(tmp_path: Path) -> Own:
    """A learner's folder where the chain rule has passed and gradient descent has not."""
    found = Own(tmp_path / "mine")
    for exercise in (CHAIN, DESCENT):
        found.open(exercise)
        code = (exercise.folder / "solution.py").read_text(encoding="utf-8")
        found.file(exercise).write_text(code, encoding="utf-8")
    found.checked(CHAIN, True, file_hash(found.file(CHAIN)))
    found.checked(DESCENT, False, file_hash(found.file(DESCENT)))
    return found


def test_passed_parts_are_inserted(own: Own, capsys: pytest.CaptureFixture[str]) -> None:
    with mine(own.folder) as entered:
        assert entered == (CHAIN,)
    assert "chain_rule" in capsys.readouterr().err


def test_unpassed_parts_are_rejected(own: Own) -> None:
    with pytest.raises(UserError, match="has not passed"), mine(own.folder, ["gradient-descent"]):
        pass


def test_no_passed_part_left_is_explained_in_one_sentence(own: Own) -> None:
    change(own, CHAIN)
    said = r"chain_rule \(changed since it passed\), gradient_descent \(has not passed\); groundup"
    with pytest.raises(UserError, match=said), mine(own.folder):
        pass
    with pytest.raises(UserError, match="changed since"), mine(own.folder, ["chain_rule"]):
        pass


def test_a_missing_part_is_named_and_others_are_inserted(
    own: Own, capsys: pytest.CaptureFixture[str]
) -> None:
    passed(own, LAYER)
    change(own, CHAIN)
    with mine(own.folder) as entered:
        assert entered == (LAYER,)
    said = capsys.readouterr().err
    assert "Yours:       layer (from" in said
    assert "not in: chain_rule (changed since it passed), gradient_descent (has not" in said


def test_an_overridden_part_is_not_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own, every = Own(tmp_path / "mine"), [one for one in road() if one.has_seam]
    for exercise in every:
        passed(own, exercise)
        with open(own.file(exercise), "a", encoding="utf-8") as file:
            file.write(f"\n_functions = {exercise.functions!r}\n{HEARD}")
        own.checked(exercise, True, file_hash(own.file(exercise)))
    with mine(own.folder) as entered:
        assert set(every) - set(entered) == {find("kl_divergence")}
        for exercise in entered:
            capsys.readouterr()
            exercise.page("seam").try_it()
            assert f"called {exercise.name}\n" in capsys.readouterr().out
        names = set(request.user_parts.get())
        assert names == {exercise.name for exercise in entered}
    own.file(find("grpo")).unlink()
    with mine(own.folder) as entered:
        assert find("kl_divergence") in entered


HEARD = """
def _heard(plain):
    def heard(*given, **named):
        print("called", __name__.removeprefix("my_groundup_"))
        return plain(*given, **named)
    return heard


globals().update({name: _heard(globals()[name]) for name in _functions})
"""


def passed(own: Own, exercise: Exercise) -> None:
    own.open(exercise)
    code = (exercise.folder / "solution.py").read_text(encoding="utf-8")
    own.file(exercise).write_text(code, encoding="utf-8")
    own.checked(exercise, True, file_hash(own.file(exercise)))


def change(own: Own, exercise: Exercise) -> None:
    with open(own.file(exercise), "a", encoding="utf-8") as file:
        file.write("# later\n")


@pytest.mark.parametrize("finished", [False, True])
def test_a_run_continues_with_its_parts(
    own: Own, tmp_path: Path, finished: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    config = PerceptronConfig(out=tmp_path / "run")
    with mine(own.folder, run=config.out), Run.open(config.out, "perceptron", config) as run:
        run.log("metrics.jsonl", step=1)
        if finished:
            run.finish()
    passed(own, LAYER)
    with mine(own.folder, run=config.out) as entered:
        assert entered == (CHAIN,)
        with Run.open(config.out, "perceptron", config) as run:
            assert run.finished == finished
    assert "not in: gradient_descent (has not passed), layer (" in capsys.readouterr().err
    change(own, CHAIN)
    with (
        mine(own.folder, run=config.out),
        pytest.raises(UserError, match="begun with these parts of your own"),
    ):
        Run.open(config.out, "perceptron", config)


def test_a_command_finds_its_finished_run_after_another_part_passed(
    own: Own, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text, out = tmp_path / "sea.txt", tmp_path / "run"
    text.write_text("The sea is wide.", encoding="utf-8")
    config = TokenizerConfig(data=text, out=out)
    with mine(own.folder), Run.open(out, "tokenizer", config, {"data": text}) as run:
        run.finish()
    passed(own, LAYER)
    words = ["tokenizer", str(text), "--out", str(out), f"--mine={own.folder}"]
    assert main(words) == 0, capsys.readouterr().err


def test_a_part_may_import_a_file_next_to_it_which_must_not_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    own = Own(Path("my_groundup"))
    own.open(CHAIN)
    code = (CHAIN.folder / "solution.py").read_text(encoding="utf-8")
    (own.folder / "my_rules.py").write_text("import my_order\n\n" + code, encoding="utf-8")
    (own.folder / "my_order.py").write_text("FIRST = 1\n", encoding="utf-8")
    names = ", ".join(CHAIN.functions)
    own.file(CHAIN).write_text(f"from my_rules import {names}\n", encoding="utf-8")
    assert main(["learn", "check", "1.2"]) == 0
    before = list(sys.path)
    with mine(own.folder) as entered:
        assert entered == (CHAIN,)
        assert "my_rules" in sys.modules
    assert sys.path == before
    assert "my_rules" not in sys.modules
    (own.folder / "my_order.py").write_text("FIRST = 2\n", encoding="utf-8")
    with pytest.raises(UserError, match="changed since"), mine(own.folder):
        pass


def test_an_empty_folder_is_rejected(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no part yet"), mine(tmp_path):
        pass


def test_a_run_records_its_parts(own: Own, tmp_path: Path) -> None:
    config = PerceptronConfig(out=tmp_path / "run")
    with mine(own.folder), Run.open(config.out, "perceptron", config):
        pass
    found = read_run(config.out)
    assert found["mine"] == {"chain_rule": file_hash(own.file(CHAIN))}
    with mine(own.folder), Run.open(config.out, "perceptron", config):
        pass  # continued
    (config.out / "metrics.jsonl").write_text("{}\n")  # work was done
    with pytest.raises(UserError, match="parts of your own"):
        Run.open(config.out, "perceptron", config)


def test_a_stub_is_never_overwritten(own: Own) -> None:
    before = own.file(CHAIN).read_text(encoding="utf-8")
    assert not own.open(CHAIN)
    assert own.file(CHAIN).read_text(encoding="utf-8") == before
    kept = own.reset(CHAIN)
    assert kept is not None and kept.read_text(encoding="utf-8") == before
    assert "NotImplementedError" in own.file(CHAIN).read_text(encoding="utf-8")
    assert not own.has_passed(CHAIN)


def test_a_full_disk_leaves_no_stub_and_an_empty_file_is_none(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with small_disk(tmp_path / "disk", 2**20) as disk:
        own = Own(disk.folder / "mine")
        words = ["learn", "1.2", f"--folder={own.folder}"]
        with disk.left(0):
            assert main(words) == 2
        assert str(own.file(CHAIN)) in capsys.readouterr().err
        assert list(own.folder.iterdir()) == []
        own.file(CHAIN).touch()
        assert main(["learn", "check", *words[1:]]) == 2
        assert "chain_rule.py is empty; groundup learn 1.2" in capsys.readouterr().err
        assert main(words) == 0 and "written, for you to fill in" in capsys.readouterr().out
        assert own.file(CHAIN).read_bytes() == (CHAIN.folder / "stub.py").read_bytes()
        own.file(CHAIN).write_bytes(b"")
        assert own.reset(CHAIN) is None


def test_all_exercises_of_a_learner(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["learn", "solution"]) == 2 and "no exercise was opened" in capsys.readouterr().err
    assert main(["learn", "matrices", "--notebook"]) == 0
    shown = capsys.readouterr().out
    assert "Matrices as transformations" in shown and "Predict first" in shown
    assert "read from right to left" in shown and "second @ first" not in shown
    assert (tmp_path / "my_groundup" / "matrices.ipynb").is_file()
    assert main(["learn", "solution"]) == 2 and "have not tried" in capsys.readouterr().err
    assert main(["learn", "predict", "1.4", "z"]) == 2
    assert main(["learn", "predict", "1.4", "b", "--sure", "80"]) == 0
    for words in (["learn"], ["learn", "status"]):  # it may still be changed, so it is not judged
        capsys.readouterr()
        assert main(words) == 0 and "Predictions:" not in capsys.readouterr().out
    assert main(["learn", "check"]) == 1
    assert "Not written yet: rotation, after, moved, area_factor." in capsys.readouterr().out
    assert main(["learn", "solution"]) == 2 and "have not tried" in capsys.readouterr().err
    path = tmp_path / "my_groundup" / "matrices.py"
    code = path.read_text(encoding="utf-8")
    path.write_text(code.replace("raise NotImplementedError", "return 0"), encoding="utf-8")
    assert main(["learn", "check"]) == 1
    for number in range(1, 5):
        assert main(["learn", "hint"]) == 0
        assert f"Hint {min(number, 3)} of 3" in capsys.readouterr().out
    assert main(["learn", "solution"]) == 0 and "second @ first" in capsys.readouterr().out
    code = (MATRICES.folder / "solution.py").read_text(encoding="utf-8")
    (tmp_path / "my_groundup" / "matrices.py").write_text(code, encoding="utf-8")
    assert main(["learn", "check", "1.4"]) == 0
    assert "You said:    b: wrong, it is a." in capsys.readouterr().out
    assert main(["learn", "predict", "1.4", "a"]) == 2
    assert main(["learn"]) == 0 and "✓ 1.4" in capsys.readouterr().out
    assert main(["learn", "status"]) == 0 and "Brier score 0.64" in capsys.readouterr().out
    # Who has seen the answer has seen it, though the part passes no more.
    for again in (["learn", "reset", "1.4"], ["learn", "check", "1.4"]):
        assert main(again) == ("check" in again)
        assert main(["learn", "predict", "1.4", "a"]) == 2
        capsys.readouterr()
        assert main(["learn", "status"]) == 0
        shown = capsys.readouterr().out
        assert "predicted b, wrong" in shown and "Brier score 0.64" in shown
    assert main(["learn", "--tutor"]) == 0 and "Never write the answer" in capsys.readouterr().out
    assert main(["learn", "3.99"]) == 2


def test_an_invalid_choice_is_requested_again(tmp_path: Path) -> None:
    own = Own(tmp_path / "mine")
    terminal = Terminal("learn", "1.4", "--folder", str(own.folder), columns=80)
    for pattern, typed in (
        (r"Your choice \(Enter to skip\): ", "z"),
        (r"'z' is not possible; type one of a, b, c(.|\n)*Your choice .*: ", "ab"),
        (r"'ab' is not possible(.|\n)*Your choice .*: ", " (B) "),
        (r"How sure are you, .*\? ", "101"),
        (r"'101' is not possible; type a whole number from 0 to 100(.|\n)*How sure .*\? ", "80 %"),
    ):
        terminal.wait_for(pattern)
        terminal.send(f"{typed}\n")
    terminal.wait_for("Then: ")
    terminal.leave()
    prediction = own.record(MATRICES).prediction
    assert prediction is not None
    assert (prediction.choice, prediction.confidence) == ("b", 0.8)


@pytest.mark.parametrize("which", ["attention", "gae"])
def test_a_page_through_a_pipe_is_plain_text(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], which: str
) -> None:
    exercise, own = find(which), Own(tmp_path / "mine")
    own.checked(exercise, False, "")
    shown = ""
    for words in ([], ["hint"], ["solution"]):
        assert main(["learn", *words, exercise.number, f"--folder={own.folder}"]) == 0
        shown += capsys.readouterr().out
    assert f"Hint 1 of 3 for {exercise}." in shown and "\x1b" not in shown
    assert not re.search(r"\*\*\w|```|^#+ |`\w| $", shown, re.M)
    code = (exercise.folder / "solution.py").read_text(encoding="utf-8")
    assert code in re.sub("^ ", "", shown, flags=re.M)  # every line of it whole


@pytest.mark.parametrize("columns", [60, 80])
@pytest.mark.parametrize(
    ("which", "told"),
    [
        (["3"], "your own sampler picks every token of a reply"),
        (["3.6"], "What happens to it at temperature 0.5?"),
    ],
)
def test_words_are_not_broken_at_a_terminal(
    tmp_path: Path, columns: int, which: list[str], told: str
) -> None:
    words = ["learn", *which, "--folder", str(tmp_path)]
    terminal = Terminal(*words, columns=columns, COLUMNS=str(columns), NO_COLOR="1")
    shown = terminal.wait_for(r"Next: |Your choice \(Enter to skip\): ")
    terminal.leave()
    plain = re.sub(r"\x1b\[[0-9;]*m|\r", "", shown)
    assert [line for line in plain.split("\n") if len(line.rstrip()) > columns] == []
    assert told in " ".join(plain.split())


def test_damaged_progress_is_reported_with_the_remedy(own: Own) -> None:
    path = own.folder / "progress.json"
    for content in (b"", b"{", b"\xff", b"[1]", b'{"exercises": 1}', b"[" * 100_000):
        path.write_bytes(content)
        with pytest.raises(
            UserError, match=r"progress\.json is damaged .* your files stay"
        ) as told:
            own.progress()
    path.unlink()  # as it says
    command = re.search(r"groundup (learn check NUMBER .*) finds out", str(told.value))
    assert command is not None
    own.file(CHAIN).write_bytes((CHAIN.folder / "solution.py").read_bytes())
    assert main(shlex.split(command[1].replace("NUMBER", CHAIN.number))) == 0
    assert own.has_passed(CHAIN)


def test_a_notebook_or_page_requires_an_exercise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for option in ("--notebook", "--page"):
        assert main(["learn", option]) == 2
        said = capsys.readouterr()
        assert f"groundup learn 1.2 {option}" in said.err and not said.out


def test_remaining_work_is_listed(own: Own, capsys: pytest.CaptureFixture[str]) -> None:
    scaling = find("scaling")
    passed(own, scaling)
    assert main(["learn", "check", "3.8", "--folder", str(own.folder)]) == 1
    shown = capsys.readouterr()
    assert "Right so far; the run is still to come" in shown.out
    assert not own.has_passed(scaling)


def test_a_step_shows_its_exercises(own: Own, capsys: pytest.CaptureFixture[str]) -> None:
    folder = f"--folder={own.folder}"
    assert main(["learn", "1", folder]) == 0
    shown = capsys.readouterr().out
    assert "✓ 1.2" in shown and "1.8" in shown and "2.1" not in shown
    assert "learn 1.1" in shown
    assert main(["learn", "3", folder]) == 0 and "learn 3.1" in capsys.readouterr().out
    for words in (["3.99"], ["check", "3"], ["3", "--notebook"], ["hint", "3."]):
        assert main(["learn", *words, folder]) == 2
        assert "step 3 has 3.1 to 3.8" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (
            "chekc 3.3",
            "'chekc' is not a command or an exercise; did you mean groundup learn check 3.3?",
        ),
        ("chekc 3.3 --seed 3", "did you mean groundup learn check 3.3 --seed 3?"),
        ("stauts", "did you mean groundup learn status?"),
        ("--folder other Hnit 3.3", "did you mean groundup learn hint --folder other 3.3?"),
        ("--folder other status", "comes first: groundup learn status --folder other"),
        ("3.3 check", "check is a command and comes first: groundup learn check 3.3"),
        ("attentoin", "did you mean attention (Attention, mask and heads)?"),
        ("--folder check 9.9", "'9.9' is no exercise"),
        ("3.3 3.4", "'3.4': too many arguments for this command"),
    ],
)
def test_a_misspelled_or_misplaced_command_is_recognized(
    words: str,
    told: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["learn", *words.split()]) == 2
    said = capsys.readouterr().err
    assert told in said and len(said.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_suggested_commands_name_the_folder(
    own: Own, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "my parts"
    words = ["--folder", str(folder)]
    main(["learn", "3.8", *words])
    main(["learn", "solution", *words])
    main(["learn", "check", *words])
    main(["learn", *words])
    Own(folder).file(CHAIN).write_bytes((CHAIN.folder / "solution.py").read_bytes())
    main(["learn", "check", "1.2", *words])
    main(["learn", "check", "1.5", *words])
    said = capsys.readouterr()
    typed = re.findall(r"groundup learn (?:\w+ )?[0-9.]{3}.*", said.out + said.err)
    assert len(typed) >= 7
    assert all(f"--folder '{folder}'" in line for line in typed), typed
    assert f"--mine='{folder}'" in said.out


def test_running_a_whole_notebook_changes_nothing_and_reveals_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["learn", "matrices", "--notebook"]) == 0
    own = Own(tmp_path / "my_groundup")
    code = own.file(MATRICES).read_text(encoding="utf-8") + "# my own line\n"
    own.file(MATRICES).write_text(code, encoding="utf-8")
    monkeypatch.chdir(own.folder)  # where Jupyter runs it
    capsys.readouterr()
    run_all(own.folder / "matrices.ipynb")
    shown = capsys.readouterr().out
    assert "# my own line" in shown and "Not written yet" in shown
    assert own.file(MATRICES).read_text(encoding="utf-8") == code
    record = own.record(MATRICES)
    assert (record.tries, record.hints) == (0, 0)  # nothing was tried
    assert record.prediction is None and not record.solution_seen
    files = {path.name for path in own.folder.iterdir() if path.is_file()}
    assert files == {"matrices.ipynb", "matrices.py", "progress.json"}


def run_all(notebook: Path) -> None:
    """Run the cells as Jupyter does: Python, magics, and shell lines with {…} replaced."""
    names: dict[str, object] = {}
    for cell in json.loads(notebook.read_text(encoding="utf-8"))["cells"]:
        source = cell["source"]
        if cell["cell_type"] != "code":
            continue
        if source.startswith("%%writefile "):
            name, _, text = source.removeprefix("%%writefile ").partition("\n")
            Path(name).write_text(text, encoding="utf-8")
            continue
        for line in source.splitlines():
            if line.startswith("!{sys.executable} -m groundup "):
                main(line.removeprefix("!{sys.executable} -m groundup ").split())
            else:
                exec(line, names)


@pytest.mark.long
def test_a_training_with_the_learners_adamw(
    own: Own, workshop: Workshop, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    adamw = find("optimizers")
    own.open(adamw)
    code = (adamw.folder / "solution.py").read_text(encoding="utf-8")
    own.file(adamw).write_text(f"{code}\nprint('loaded')\n", encoding="utf-8")
    own.checked(adamw, True, file_hash(own.file(adamw)))
    losses = {}
    for name, more in (("plain", []), ("mine", ["--mine", str(own.folder)])):
        out = tmp_path / f"run-{name}"
        command = workshop.command("pretrain", out, steps=3, evaluations=1)
        arguments = [str(word) for word in command[command.index("pretrain") :]]
        assert main([*arguments, *more]) == 0
        metrics = [line for line in read_lines(out / "metrics.jsonl") if "loss" in line]
        losses[name] = [line["loss"] for line in metrics]
    said = capsys.readouterr()
    assert "loaded" in said.out and "chain_rule, optimizers" in said.err
    assert losses["mine"] == pytest.approx(losses["plain"], rel=1e-4)
    assert set(read_run(tmp_path / "run-mine")["mine"]) == {"chain_rule", "optimizers"}
    assert "mine" not in read_run(tmp_path / "run-plain")


@pytest.mark.parametrize(
    ("words", "folder"),
    [
        (["chat", "model", "--mine"], True),
        (["chat", "model", "--mine", "my_groundup"], Path("my_groundup")),
        (["generate", "model", "The sea", "--mine", "--seed", "3"], True),
        (["sft", "model", "--data", "x", "--mine=other"], Path("other")),
        (["experiment", "perceptron", "--mine"], True),
        (["chat", "model"], None),
    ],
)
def test_the_folder_may_be_omitted(words: list[str], folder: object) -> None:
    _, bound, _ = app.parse_args(words, print_error=False, exit_on_error=False)
    assert bound.arguments.get("mine") == folder


def test_a_model_after_a_bare_option_is_not_a_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    assert main(["generate", "--mine", "model", "The sea"]) == 2
    said = capsys.readouterr().err  # the model was found, but is invalid
    assert "MODEL is missing" not in said and "progress" not in said


def test_a_folder_of_unchecked_parts_is_not_a_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "attention.py").write_text("")
    assert main(["sft", "--mine", "other", "model", "--data", "x.jsonl"]) == 2
    said = capsys.readouterr().err
    assert len(said.splitlines()) == 1 and "progress.json" in said
    assert "groundup learn check attention --folder other" in said
    (tmp_path / "other" / "attention.py").rename(tmp_path / "other" / "notes.py")
    assert main(["sft", "--mine", "other", "model", "--data", "x.jsonl"]) == 2
    assert "has no parts and no model" in capsys.readouterr().err
    assert main(["generate", "model", "--mine", "The sea " * 500]) == 2
    assert "no model folder 'model'" in capsys.readouterr().err


def test_after_all_exercises_a_chat_is_suggested(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = Own(tmp_path / "mine")
    for exercise in road():
        own.open(exercise)
        own.checked(exercise, True, part_hash(own.file(exercise)))
    show_road(own.folder)
    said = " ".join(capsys.readouterr().out.split())
    assert f"groundup chat MODEL --mine={own.folder} runs on your own parts" in said
