"""Planted bias: remarks on given gaps, and the whole experiment in miniature."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import scipy.stats

from groundup.evals.fairness import Leanings
from groundup.experiments.planted_bias import (
    KINDS,
    Strength,
    plot,
    remarks,
    table,
)
from groundup.maths.intervals import Interval
from groundup.report.estimate import Estimate
from groundup.world.lives import probes

STAGES = ("base", "sft", "dpo")


def strength(planted: float, base: float, sft: float, dpo: float) -> Strength:
    """Gaps known to 0.05; a chat model's plain text has other values."""

    def gaps(estimate: float, way: str) -> dict[str, Estimate]:
        found = Estimate(estimate, estimate - 0.05, estimate + 0.05, 8, 8)
        return {f"{kind}, {way}": found for kind in KINDS}

    asked = {
        stage: gaps(-9, "as text") | gaps(gap, "as an answer")
        for stage, gap in (("sft", sft), ("dpo", dpo))
    }
    further = gaps(abs(dpo) - abs(sft), "as an answer")
    return Strength(planted, {"base": gaps(base, "as text"), **asked}, further, {})


def leanings(gap: float) -> Leanings:
    """A model with this bias towards the planted one (below 0: against it)."""
    lean = np.array([one.lean for one in probes()])
    return Leanings(probes(), dict.fromkeys(("as text", "as an answer"), 0.5 + 0.5 * gap * lean))


FOUND = [
    strength(0.0, 0.01, 0.02, 0.03),
    strength(0.5, 0.40, 0.45, 0.44),
    strength(1.0, 0.90, 0.80, 0.20),
]


def test_each_stage_is_measured_in_its_own_format() -> None:
    assert FOUND[2].gap("base", "jobs") == Interval(0.9, 0.9 - 0.05, 0.9 + 0.05)
    assert FOUND[2].gap("dpo", "groups").estimate == 0.2


def test_remarks_say_whether_the_measure_rises_and_alignment_lowers_it() -> None:
    said = remarks(FOUND)
    assert len(said) == len(KINDS) * 2
    assert said[0].startswith("jobs: the rank correlation") and "1.00 after base" in said[0]
    # Lower at 0.5 and at 1; only at 1 by more than both intervals. Strength 0 does not count.
    assert "0.50 after dpo, over 3 strengths" in said[0]
    assert "at 2 of 2 strengths above 0; at 1 the interval" in said[1]
    risen = remarks([strength(0.0, 0.9, 0.1, 0.2), strength(1.0, 0.1, 0.2, 0.9)])
    assert "-1.00 after base" in risen[0] and "at 0 of 1 strengths above 0; at 0 the" in risen[1]
    # Nor does it count beside those that are sure.
    unplanted = remarks([strength(0.0, 0.9, 0.9, 0.1), strength(1.0, 0.1, 0.2, 0.9)])
    assert "at 0 of 1 strengths above 0; at 0 the" in unplanted[1]


def test_equal_gaps_share_their_rank_and_a_single_value_has_none() -> None:
    planted, gaps = [0.0, 0.25, 0.5, 0.75, 1.0], [0.3, 0.1, 0.1, 0.1, 0.1]
    said = remarks([strength(p, g, p, 0.2) for p, g in zip(planted, gaps, strict=True)])
    rho = scipy.stats.spearmanr(planted, gaps).statistic
    assert said[0] == (
        "jobs: the rank correlation of the measured gap with the planted strength is "
        f"{rho:.2f} after base, 1.00 after sft and none (all gaps are the same) after dpo, over 5 "
        "strengths."
    )


def test_a_stronger_bias_against_the_planted_one_is_not_lower() -> None:
    def said(sft: float, dpo: float) -> str:
        found = {"base": leanings(0.5), "sft": leanings(sft), "dpo": leanings(dpo)}
        return remarks([Strength.of(planted, found, {}) for planted in (0.0, 1.0)])[1]

    assert "at 0 of 1 strengths above 0; at 0 the" in said(0.3, -0.5)
    assert "at 1 of 1 strengths above 0; at 1 the" in said(0.3, -0.1)
    assert "at 1 of 1 strengths above 0; at 1 the" in said(-0.5, -0.2)


# Trains at a strength of 1 as long as folders of plans say, and prints the folders.
_TRAIN = """
import json, sys
from pathlib import Path
from groundup.experiments.config import PlantedBiasConfig
from groundup.experiments.planted_bias import train

out, *first = map(Path, sys.argv[1:])
config = PlantedBiasConfig(out=out, strengths=(0.0, 1.0), quick=True)
made = train(config, out, 1.0, {path.name: path for path in first})
print(json.dumps({stage: str(path) for stage, path in made.items()}))
"""


@pytest.mark.long
def test_every_strength_is_trained_as_long_as_the_first(tmp_path: Path) -> None:
    """Whatever the time: the steps are read from the plans of the first one."""
    layout = {"context": 256, "rows": 2, "epochs": 2.0, "replay": 0.0, "decay": 0.4}
    wanted = {"base": (2, None), "sft": (4, layout), "dpo": (3, None)}
    for stage, (steps, rows) in wanted.items():
        folder = tmp_path / "first" / stage
        folder.mkdir(parents=True)
        plan = json.dumps({"steps": steps, "layout": rows})
        (folder / "plan.json").write_text(plan, encoding="utf-8")
    first = [str(tmp_path / "first" / stage) for stage in wanted]

    def trained() -> dict[str, Path]:
        """In a separate program, where no types are checked at every call."""
        command = [sys.executable, "-c", _TRAIN, str(tmp_path / "second"), *first]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        found: dict[str, str] = json.loads(done.stdout.splitlines()[-1])
        return {stage: Path(path) for stage, path in found.items()}

    made = trained()
    plans = {stage: json.loads((made[stage] / "plan.json").read_text()) for stage in made}
    assert {stage: (one["steps"], one["layout"]) for stage, one in plans.items()} == wanted
    # On a later start they are found finished.
    weights = [folder / "model.safetensors" for folder in made.values()]
    when = [path.stat().st_mtime_ns for path in weights]
    assert trained() == made
    assert [path.stat().st_mtime_ns for path in weights] == when


def test_a_table_has_a_row_for_each_strength_and_a_plot_a_line_for_each_stage() -> None:
    found = table(FOUND, "jobs")
    assert found.heads == ["planted", "after base", "after sft", "after dpo"]
    assert [row[0] for row in found.lines] == ["0.00", "0.50", "1.00"]
    assert [cell.split()[0] for cell in found.lines[2][1:]] == ["0.90", "0.80", "0.20"]
    drawn = plot(FOUND).figure
    assert [axes.get_title() for axes in drawn.axes] == list(KINDS)
    assert all(len(axes.containers) == len(STAGES) for axes in drawn.axes)


@pytest.mark.long
def test_the_experiment_in_miniature_resumes_after_a_stop(tmp_path: Path) -> None:
    """In a separate program, where no types are checked at every call."""
    out = tmp_path / "out"
    command = [sys.executable, "-m", "groundup", "experiment", "planted-bias", "--quick"]
    command += ["--strengths", "0", "1", "--out", str(out)]
    environment = os.environ | {"OPENBLAS_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as stopped:
        assert stopped.stdout is not None
        next(line for line in stopped.stdout if "strength 1" in line)
        stopped.send_signal(signal.SIGINT)
        stopped.communicate(timeout=300)
    finished = out / "models" / "0" / "dpo" / "model.safetensors"
    when = finished.stat().st_mtime_ns
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    assert finished.stat().st_mtime_ns == when
    data = json.loads((out / "result.json").read_text(encoding="utf-8"))["data"]
    assert {planted: list(found) for planted, found in data.items()} == {
        "0": [*STAGES, "further", "steps"],
        "1": [*STAGES, "further", "steps"],
    }
    assert all(
        -1 <= gap["estimate"] <= 1 for s in data.values() for g in STAGES for gap in s[g].values()
    )
    assert data["0"]["steps"] == data["1"]["steps"] and list(data["0"]["steps"]) == list(STAGES)
    assert "planted" in (out / "report.html").read_text(encoding="utf-8")
