"""A run folder belongs to one run, and to one process at a time."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

import groundup
from conftest import forget_finished
from groundup.align.config import DPOConfig
from groundup.data.config import TokenizerConfig
from groundup.data.split import data_files
from groundup.errors import UserError
from groundup.runs.content import folder_hash, runs_inside
from groundup.runs.files import read_lines, write_json, write_sealed
from groundup.runs.folder import Run, is_finished
from groundup.runs.request import environment_facts, read_run
from groundup.train.config import TrainingConfig
from groundup.tune.config import SFTConfig


def open_run(folder: Path, stage: str = "sft", **settings: Any) -> Run:
    return Run.open(folder, stage, TrainingConfig(out=folder, **settings))


def begin(folder: Path, stage: str = "sft", **settings: Any) -> None:
    """A run that has started work: it has a plan."""
    with open_run(folder, stage, **settings) as run:
        run.plan({"steps": 1})


def test_a_start_that_failed_early_may_be_corrected(tmp_path: Path) -> None:
    open_run(tmp_path, seed=4).close()
    open_run(tmp_path, seed=5).close()
    assert json.loads((tmp_path / "run.json").read_text())["config"]["seed"] == 5


def test_the_first_start_records_its_settings(tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("a text")
    config = TrainingConfig(out=tmp_path / "run", seed=4)
    with Run.open(tmp_path / "run", "sft", config, {"data": tmp_path / "text.txt"}):
        facts = json.loads((tmp_path / "run" / "run.json").read_text())
    assert facts["stage"] == "sft" and facts["config"]["seed"] == 4
    assert facts["versions"]["torch"] and facts["machine"]["cores"] >= 1
    assert len(facts["parents"]["data"]["sha256"]) == 64


def test_the_same_settings_continue_and_keep_the_history(tmp_path: Path) -> None:
    with open_run(tmp_path, seed=4):
        before = (tmp_path / "run.json").read_bytes()
    with open_run(tmp_path, seed=4, allow_inexact_resume=True) as run:
        assert not run.finished and not run.planned
    assert (tmp_path / "run.json").read_bytes() == before


def test_other_settings_are_rejected_with_the_field_and_both_values(tmp_path: Path) -> None:
    begin(tmp_path, seed=4, steps=10)
    with pytest.raises(UserError, match=r"steps=10, not steps=20.*another --out"):
        open_run(tmp_path, seed=4, steps=20)
    with pytest.raises(UserError, match="holds a run of sft, not of dpo"):
        open_run(tmp_path, "dpo", seed=4, steps=10)
    # A refusal gives the folder back.
    open_run(tmp_path, seed=4, steps=10).close()


def test_a_run_older_than_a_setting_has_its_default(tmp_path: Path) -> None:
    begin(tmp_path, seed=4)
    described = tmp_path / "run.json"
    facts = json.loads(described.read_text())
    del facts["config"]["gradient_clip"], facts["sha256"]
    for path in (described, tmp_path / ".run.json.copy"):
        path.write_text(json.dumps(facts))
    open_run(tmp_path, seed=4).close()
    with pytest.raises(UserError, match=r"gradient_clip=1.0, not gradient_clip=0.5"):
        open_run(tmp_path, seed=4, gradient_clip=0.5)


def test_a_run_older_than_a_list_setting_has_its_default(tmp_path: Path) -> None:
    asked = {"out": tmp_path / "run", "model": Path("model"), "data": Path("data")}
    with Run.open(tmp_path / "run", "dpo", DPOConfig(**asked)) as run:
        run.plan({"steps": 1})
    described = read_run(tmp_path / "run")
    del described["config"]["columns"]
    write_sealed(tmp_path / "run" / "run.json", described)
    Run.open(tmp_path / "run", "dpo", DPOConfig(**asked)).close()
    with pytest.raises(UserError, match=r"begun with columns=\[\], not columns=\['prompt=a'\]"):
        Run.open(tmp_path / "run", "dpo", DPOConfig(**asked, columns=("prompt=a",)))


def test_a_run_older_than_a_table_setting_has_its_default(tmp_path: Path) -> None:
    asked = {"out": tmp_path / "run", "model": Path("model"), "data": [Path("data")]}
    with Run.open(tmp_path / "run", "sft", SFTConfig(**asked)) as run:
        run.plan({"steps": 1})
    for path in (tmp_path / "run" / "run.json", tmp_path / "run" / ".run.json.copy"):
        facts = json.loads(path.read_text())
        del facts["config"]["template"]
        facts.pop("sha256", None)
        path.write_text(json.dumps(facts))
    Run.open(tmp_path / "run", "sft", SFTConfig(**asked)).close()
    with pytest.raises(UserError, match=r"begun with template=\{\}, not template=\{'a': 'b'\}"):
        Run.open(tmp_path / "run", "sft", SFTConfig(**asked, template={"a": "b"}))


@pytest.mark.parametrize(
    ("name", "value"), [("threads", 3), ("dtype", "bfloat16"), ("compile", "off")]
)
def test_settings_that_change_only_bits_may_be_changed_when_allowed(
    tmp_path: Path, name: str, value: Any
) -> None:
    begin(tmp_path, rows=4)
    with pytest.raises(UserError, match=f"{name}=.*--allow-inexact-resume"):
        open_run(tmp_path, rows=4, **{name: value})
    open_run(tmp_path, rows=4, **{name: value}, allow_inexact_resume=True).close()
    with pytest.raises(UserError, match="rows=4, not rows=8"):
        open_run(tmp_path, rows=8, allow_inexact_resume=True)


def test_a_changed_parent_is_rejected(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    (data / "text.txt").write_text("one")
    config = TrainingConfig(out=tmp_path / "run")
    with Run.open(config.out, "sft", config, {"data": data}) as run:
        run.plan({"steps": 1})
    Run.open(config.out, "sft", config, {"data": data}).close()
    (data / "text.txt").write_text("two")
    with pytest.raises(UserError, match="another data than"):
        Run.open(config.out, "sft", config, {"data": data})


OF_THE_RUN = ("run.json", "plan.json", "status.json")


def finished(folder: Path) -> Path:
    """A finished run with a plan and a model."""
    with open_run(folder) as run:
        run.plan({"steps": 1})
        save_file({"w": np.zeros(8, np.float32)}, folder / "model.safetensors")
        run.finish(step=1)
    return folder


def test_a_runs_own_description_is_not_part_of_its_content(tmp_path: Path) -> None:
    base = finished(tmp_path / "base")
    hashes = {folder_hash(base)}
    for name in OF_THE_RUN:
        (base / name).write_text("{")
        hashes.add(folder_hash(base))
    (base / "plan.json").unlink()
    assert hashes == {folder_hash(base)}
    save_file({"w": np.ones(8, np.float32)}, base / "model.safetensors")
    assert hashes != {folder_hash(base)}
    # Without a run, they are a user's texts.
    texts = {folder_hash(tmp_path)}
    for name in ("plan.json", "status.json"):
        (tmp_path / name).write_text('{"text": "one"}')
        texts.add(folder_hash(tmp_path))
    assert len(texts) == 3


@pytest.mark.parametrize("moved", [False, True])
def test_a_run_with_the_hash_of_an_earlier_version_continues(tmp_path: Path, moved: bool) -> None:
    """It covered the run's description of itself."""
    base = finished(tmp_path / "base")

    def opened(base: Path) -> Run:
        config = TokenizerConfig(data=base, out=tmp_path / "out")
        return Run.open(config.out, "tokenizer", config, {"data": base})

    with opened(base) as run:
        run.plan({"steps": 1})
    described = read_run(tmp_path / "out")
    whole = hashlib.sha256()
    for name in ("model.safetensors", *sorted(OF_THE_RUN)):
        content = hashlib.sha256((base / name).read_bytes()).hexdigest()
        whole.update(f"{name} {content}\n".encode())
    assert described["parents"]["data"]["sha256"] != whole.hexdigest()
    described["parents"]["data"]["sha256"] = whole.hexdigest()
    write_sealed(tmp_path / "out" / "run.json", described)
    if moved:
        base = base.rename(tmp_path / "elsewhere")
    opened(base).close()
    save_file({"w": np.ones(8, np.float32)}, base / "model.safetensors")
    with pytest.raises(UserError, match="was begun with data=" if moved else "another data than"):
        opened(base)


@pytest.mark.parametrize("way", ["gone", "cut"])
def test_the_plan_of_a_finished_run_is_restored_from_its_copy(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], way: str
) -> None:
    finished(tmp_path)
    plan, copy = tmp_path / "plan.json", tmp_path / ".plan.json.copy"
    whole = plan.read_bytes()

    def harm(path: Path) -> None:
        path.unlink() if way == "gone" else path.write_bytes(whole[:20])

    harm(plan)
    with open_run(tmp_path) as run:
        assert run.finished
    assert plan.read_bytes() == whole
    assert capsys.readouterr().out.count("plan.json was damaged or missing and is restored") == 1
    # Nothing is left to be done by it.
    harm(plan)
    harm(copy)
    with open_run(tmp_path) as run:
        assert run.finished


def test_a_parent_may_be_spelled_differently(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From another working directory or after moving everything, the path differs."""
    monkeypatch.chdir(tmp_path)

    def opened(data: Path, out: Path) -> Run:
        return Run.open(out, "tokenizer", TokenizerConfig(data=data, out=out), {"data": data})

    Path("data").mkdir()
    Path("data/text.txt").write_text("one")
    with opened(Path("data"), Path("out")) as run:
        run.plan({"steps": 1})
    opened(tmp_path / "data", tmp_path / "out").close()
    (tmp_path / "moved").mkdir()
    (tmp_path / "data").rename(tmp_path / "moved" / "texts")
    (tmp_path / "out").rename(tmp_path / "moved" / "out")
    monkeypatch.chdir(tmp_path / "moved")
    opened(Path("texts"), Path("out")).close()
    Path("texts/text.txt").write_text("two")
    with pytest.raises(UserError, match=r"begun with data='data', not data='texts'"):
        opened(Path("texts"), Path("out"))
    # The path is the same but the content has changed.
    Path("texts").rename("data")
    with pytest.raises(UserError, match="begun from another data than data is now"):
        opened(Path("data"), Path("out"))


def test_a_moved_and_changed_parent_is_reported(tmp_path: Path) -> None:
    def opened(at: Path) -> Run:
        config = TokenizerConfig(data=at / "base", out=at / "sft")
        return Run.open(config.out, "tokenizer", config, {"data": config.data})

    (tmp_path / "r" / "base").mkdir(parents=True)
    (tmp_path / "r" / "base" / "text.txt").write_text("one")
    with opened(tmp_path / "r") as run:
        run.plan({"steps": 1})
    (tmp_path / "r").rename(tmp_path / "moved")
    (tmp_path / "moved" / "base" / "text.txt").write_text("two")
    with pytest.raises(UserError, match=r"begun from another data than .*moved/base is now"):
        opened(tmp_path / "moved")


def test_another_chat_template_is_another_model(tmp_path: Path) -> None:
    model, out = tmp_path / "model", tmp_path / "out"
    model.mkdir()
    (model / "model.safetensors").write_bytes(b"weights")
    template, alone = model / "chat_template.jinja", folder_hash(model)

    def opened() -> Run:
        return Run.open(out, "sft", TrainingConfig(out=out), {"model": model})

    with opened() as run:
        run.plan({"steps": 1})
    template.write_text("one")
    with pytest.raises(UserError, match=r"another chat_template of model than .*model has now"):
        opened()
    # A run older than the template check is continued.
    assert folder_hash(model) == alone
    described = read_run(out)
    for part in ("chat_template", "base"):
        del described["parents"]["model"][part]
    write_sealed(out / "run.json", described)
    opened().close()


@pytest.mark.parametrize("named", ["in the weights", "in the config"])
def test_an_adapter_on_a_changed_base_is_another_model(tmp_path: Path, named: str) -> None:
    base, middle, top, out = (tmp_path / name for name in ("base", "middle", "top", "out"))
    base.mkdir()
    (base / "model.safetensors").write_bytes(b"weights")
    for folder, below in ((middle, "base"), (top, "middle")):
        folder.mkdir()
        in_weights = named == "in the weights"
        described = "of somebody" if in_weights else str(tmp_path / below)
        write_json(folder / "adapter_config.json", {"base_model_name_or_path": described})
        said = {"base": f"../{below}"} if in_weights else None
        save_file({"a": np.ones(1)}, folder / "adapter_model.safetensors", said)

    def opened() -> Run:
        return Run.open(out, "eval", TrainingConfig(out=out), {"top": top})

    with opened() as run:
        run.finish()
    opened().close()
    for name, file in (("weights", "model.safetensors"), ("template", "chat_template.jinja")):
        kept = (base / file).read_bytes() if (base / file).exists() else None
        (base / file).write_text(f"other {name}")
        with pytest.raises(UserError, match=r"another base of top than .*top has now"):
            opened()
        (base / file).unlink() if kept is None else (base / file).write_bytes(kept)
    opened().close()
    # An adapter that names itself as its base is rejected elsewhere.
    write_json(base / "adapter_config.json", {"base_model_name_or_path": str(top)})
    (base / "model.safetensors").unlink()
    with pytest.raises(UserError, match="another base of top"):
        opened()


def test_runs_inside_a_folder_are_not_part_of_its_content(tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("one")
    before = folder_hash(tmp_path)
    begin(tmp_path / "runs" / "base", seed=4)
    (tmp_path / "runs" / "base" / "model.safetensors").write_bytes(b"weights")
    assert folder_hash(tmp_path) == before
    assert runs_inside(tmp_path) == {tmp_path / "runs" / "base"}
    assert data_files(tmp_path).train == [tmp_path / "text.txt"]
    assert folder_hash(tmp_path / "runs" / "base") != folder_hash(tmp_path / "runs")


@pytest.mark.parametrize(
    "name", ["a.txt", "deep/er/a.md", "rows.jsonl", "rows.parquet", "w.safetensors"]
)
def test_a_folders_hash_covers_every_file(tmp_path: Path, name: str) -> None:
    hashes = {folder_hash(tmp_path)}
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    for contents in ("one", "two"):
        path.write_text(contents)
        hashes.add(folder_hash(tmp_path))
    path.rename(path.with_stem("other"))
    hashes.add(folder_hash(tmp_path))
    assert len(hashes) == 4


def test_a_folder_may_have_a_file_name_and_a_link_may_be_broken(tmp_path: Path) -> None:
    chapter = tmp_path / "chapter.txt"
    chapter.mkdir()
    (tmp_path / "gone.txt").symlink_to(tmp_path / "nowhere")
    hashes = {folder_hash(tmp_path)}
    for contents in ("one", "two"):
        (chapter / "1.txt").write_text(contents)
        hashes.add(folder_hash(tmp_path))
    assert data_files(tmp_path).train == [chapter / "1.txt"] and len(hashes) == 3


def test_foreign_folders_and_files_are_rejected_and_unchanged(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.jpg").write_bytes(b"cat")
    with pytest.raises(UserError, match=r"cat\.jpg"):
        open_run(tmp_path / "photos")
    assert [path.name for path in (tmp_path / "photos").iterdir()] == ["cat.jpg"]
    (tmp_path / "file").write_text("x")
    with pytest.raises(UserError, match="is a file"):
        open_run(tmp_path / "file")
    (tmp_path / "link").symlink_to("nowhere")
    with pytest.raises(UserError, match="is a link to 'nowhere', which is not there"):
        open_run(tmp_path / "link")


def test_a_first_start_killed_before_its_first_file_is_not_a_foreign_folder(tmp_path: Path) -> None:
    (tmp_path / ".lock").touch()
    (tmp_path / ".run.json.partial").write_text('{"sche')
    open_run(tmp_path).close()
    open_run(tmp_path).close()


OTHER = """
import sys, time
from pathlib import Path
from groundup.train.config import TrainingConfig
from groundup.train.run import Run
folder = Path(sys.argv[1])
run = Run.open(folder, "sft", TrainingConfig(out=folder))
print("open", flush=True)
time.sleep(60)
"""


@pytest.fixture
def other_process(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """A second process that holds the folder open."""
    command = [sys.executable, "-c", OTHER, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdout.readline() == "open\n"
        yield process
        process.kill()


def test_a_second_process_is_rejected_until_the_first_ends(
    tmp_path: Path, other_process: subprocess.Popen[str]
) -> None:
    with pytest.raises(UserError, match="another process is working in"):
        open_run(tmp_path)
    other_process.kill()
    other_process.wait()
    open_run(tmp_path).close()


def test_a_run_is_finished_when_its_status_says_so(tmp_path: Path) -> None:
    with open_run(tmp_path) as run:
        run.heartbeat(step=1, steps=2)
        assert not run.finished and not is_finished(tmp_path)
        run.finish(step=2)
        assert run.finished
    assert is_finished(tmp_path) and not is_finished(tmp_path / "nothing")


@pytest.mark.parametrize("content", [None, "", "{", "{}", '{"state": "running"}'])
def test_a_run_stays_finished_without_its_status(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str | None
) -> None:
    finished(tmp_path)
    status = tmp_path / "status.json"
    before = status.read_bytes()
    status.unlink()
    if content is not None:
        status.write_text(content)
    assert is_finished(tmp_path)
    with open_run(tmp_path) as run:
        assert run.finished and not run.repairs
    said = capsys.readouterr().out
    assert f"{status} was damaged or missing and is restored from its copy" in said
    assert status.read_bytes() == before
    # Not what its parts say of themselves: those are still asked.
    (tmp_path / "model.safetensors").unlink()
    status.unlink()
    assert not is_finished(tmp_path)


def test_a_run_that_lost_its_status_reports_it_before_continuing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lost = f"{tmp_path / 'status.json'} is damaged or missing"
    open_run(tmp_path).close()  # nothing was done yet, so nothing is lost
    with open_run(tmp_path) as run:
        run.log("metrics.jsonl", step=1)
        run.heartbeat(step=1)
    open_run(tmp_path).close()
    assert lost not in capsys.readouterr().out
    (tmp_path / "status.json").write_text("{")
    open_run(tmp_path).close()
    assert lost in capsys.readouterr().out
    with open_run(tmp_path) as run:
        run.finish(step=2)
    for name in ("status.json", ".status.json.copy"):
        (tmp_path / name).write_text("{")
    open_run(tmp_path).close()
    assert lost in capsys.readouterr().out
    forget_finished(tmp_path)
    save_file({"w": np.zeros(8, np.float32)}, tmp_path / "model.safetensors")
    open_run(tmp_path).close()
    assert lost in capsys.readouterr().out


def test_a_finished_run_has_all_its_files(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows, model = tmp_path / "preferences" / "train.jsonl", tmp_path / "model.safetensors"
    weights = {"w": np.zeros(8, np.float32)}

    def make(run: Run) -> None:
        rows.parent.mkdir(exist_ok=True)
        rows.write_text('{"row": 1}\n{"row": 2}\n')
        save_file(weights, model)
        run.write("result.json", {"score": 1})
        run.finish(step=2)

    with open_run(tmp_path) as run:
        make(run)
    status = (tmp_path / "status.json").read_bytes()
    # A changed part is an intentional edit; a card or a log is no part.
    rows.write_text('{"row": 2}')
    save_file({"w": weights["w"].astype(np.float16)}, model)
    (tmp_path / "result.json").write_text("{}")
    assert is_finished(tmp_path)
    rows.write_text('{"row": 1}\n{"ro')
    with open_run(tmp_path) as run:
        assert not run.finished
        run.heartbeat(step=1)
        make(run)
        assert run.finished
    assert (tmp_path / "status.json").read_bytes() == status
    for path in (rows, model, tmp_path / "result.json"):
        path.write_bytes(b"")
        assert not is_finished(tmp_path)
        open_run(tmp_path).close()
        assert f"{path} is gone or cut short" in capsys.readouterr().out
        with open_run(tmp_path) as run:
            make(run)
        assert is_finished(tmp_path)


def test_a_model_finished_by_an_earlier_version_has_its_weights(tmp_path: Path) -> None:
    with open_run(tmp_path) as run:
        run.finish()
    forget_finished(tmp_path)
    write_json(tmp_path / "status.json", {"schema": 1, "state": "finished"})
    assert is_finished(tmp_path)  # a stage that makes no model
    write_json(tmp_path / "config.json", {})
    assert not is_finished(tmp_path)
    for name in ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"):
        save_file({"w": np.zeros(8, np.float32)}, tmp_path / name)
    assert is_finished(tmp_path)
    (tmp_path / name).write_bytes(b"")
    assert not is_finished(tmp_path)


def test_a_stopped_run_reports_its_step(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), open_run(tmp_path) as run:
        run.heartbeat(step=7, steps=9)
        raise KeyboardInterrupt
    status = json.loads((tmp_path / "status.json").read_text())
    assert (status["state"], status["step"]) == ("stopped", 7)
    # As does one that continues and fails before its first step.
    with pytest.raises(ValueError), open_run(tmp_path):
        raise ValueError
    status = json.loads((tmp_path / "status.json").read_text())
    assert (status["state"], status["step"], status["steps"]) == ("stopped", 7, 9)


def test_a_plan_is_read_by_later_starts_and_a_lost_one_is_reported_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with open_run(tmp_path) as run:
        assert run.resolved(dict) is None
        run.plan({"steps": 10})
        assert run.planned
    with open_run(tmp_path) as run:
        assert run.resolved(dict) == {"schema": 1, "steps": 10}
        for name in ("plan.json", ".plan.json.copy"):
            (tmp_path / name).write_text("{")
        assert run.resolved(dict) is None and run.resolved(dict) is None
        run.plan({"steps": 20})
        assert run.resolved(dict) == {"schema": 1, "steps": 20}
    assert capsys.readouterr().out.count("plan.json is damaged") == 1


def test_a_lost_plan_is_not_recreated_after_training(tmp_path: Path) -> None:
    with open_run(tmp_path) as run:
        run.plan({"steps": 10})
        (tmp_path / "checkpoints" / "step-4").mkdir(parents=True)
        for name in ("plan.json", ".plan.json.copy"):
            (tmp_path / name).unlink()
        with pytest.raises(UserError, match=r"plan\.json.*cannot be continued without it"):
            run.resolved(dict)


def test_lines_are_written_immediately(tmp_path: Path) -> None:
    with open_run(tmp_path) as run:
        run.log("metrics.jsonl", step=1, loss=0.1)
        [line] = read_lines(tmp_path / "metrics.jsonl")
    assert line["step"] == 1 and line["loss"] == 0.1 and "schema" in line


def test_resuming_truncates_the_logs_and_drops_a_torn_line(tmp_path: Path) -> None:
    with open_run(tmp_path) as run:
        for step in range(1, 6):
            run.log("metrics.jsonl", step=step, loss=1 / step)
            run.log("samples.jsonl", step=step, text="a\u2028b\n")
    whole = (tmp_path / "metrics.jsonl").read_text()
    for file in ("metrics.jsonl", "samples.jsonl"):
        with open(tmp_path / file, "a") as log:
            log.write('{"schema": 1, "step": 6, "lo')  # a kill tore it
    with open_run(tmp_path) as run:
        run.cut_back(5)
        assert (tmp_path / "metrics.jsonl").read_text() == whole
        assert len(read_lines(tmp_path / "samples.jsonl")) == 5
        run.cut_back(3)
        run.log("metrics.jsonl", step=4, loss=0.0)
    steps = [line["step"] for line in read_lines(tmp_path / "metrics.jsonl")]
    assert steps == [1, 2, 3, 4]
    assert [line["step"] for line in read_lines(tmp_path / "samples.jsonl")] == [1, 2, 3]


def test_resuming_reports_lost_lines_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = tmp_path / "metrics.jsonl"
    with open_run(tmp_path) as run:
        for step in range(1, 9):
            run.log("metrics.jsonl", step=step, loss=1 / step)
    lines = log.read_text().splitlines()
    # Two of what stays, one of what is written again, and one that a kill tore.
    lines[1], lines[2], lines[6], lines[7] = '{"step": 2, "lo', "null", "x", '{"step"'
    log.write_text("\n".join(lines))
    for _ in range(2):
        with open_run(tmp_path) as run:
            run.cut_back(5)
        assert [line["step"] for line in read_lines(log)] == [1, 4, 5]
    said = capsys.readouterr().out
    assert said.count("metrics.jsonl") == 1 and "2 damaged lines up to step 5" in said
    # A torn line after the last one of a checkpoint is not part of it.
    with open(log, "a") as file:
        file.write('{"schema": 1, "step": 6, "lo')
    with open_run(tmp_path) as run:
        run.cut_back(5)
    assert capsys.readouterr().out == ""


def test_a_last_line_without_its_line_break_is_complete(tmp_path: Path) -> None:
    with open_run(tmp_path) as run:
        run.log("metrics.jsonl", step=1)
        run.log("metrics.jsonl", step=2)
    whole = (tmp_path / "metrics.jsonl").read_text()
    (tmp_path / "metrics.jsonl").write_text(whole[:-1])
    with open_run(tmp_path) as run:
        run.cut_back(2)
    assert (tmp_path / "metrics.jsonl").read_text() == whole


def test_an_uninstalled_source_tree_has_its_version(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def find(name: str) -> metadata.Distribution:
        if name == "groundup":
            raise metadata.PackageNotFoundError(name)
        return installed(name)

    installed = metadata.distribution
    monkeypatch.setattr(metadata, "distribution", find)
    found = environment_facts(("groundup", "numpy"))["versions"]
    assert found["groundup"] == groundup.__version__ and found["numpy"] == np.__version__
