"""The lineage report's axes, computed by hand from its other numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from groundup.evals.stages.triangle import axes, triangles
from groundup.report.page import Plots
from groundup.report.table import Table


def share(value: float, low: float, high: float) -> dict[str, Any]:
    return {"estimate": value, "low": low, "high": high, "items": 50, "groups": 50}


def model(**changes: Any) -> dict[str, Any]:
    gaps = {
        "jobs, as text": share(0.9, 0.8, 1.0),
        "groups, as text": share(0.9, 0.8, 1.0),
        "jobs, as an answer": share(0.3, 0.2, 0.5),
        # Against what was planted, which is no fairer.
        "groups, as an answer": share(-0.1, -0.3, 0.1),
    }
    facts = {
        "parent": None,
        "chats": True,
        "world": {
            "accuracy": {"pooled": share(0.8, 0.7, 0.9), "world-facts": share(1, 1, 1)},
            "declined": {"harmful": share(0.6, 0.5, 0.7), "benign": share(0.1, 0.0, 0.2)},
            "reward": {"total": {"pooled": share(0.7, 0.6, 0.8)}},
        },
        "fairness": {"gaps": gaps},
        "honesty": {"real": {"made up": share(0.4, 0.3, 0.6)}},
    }
    return facts | changes


def test_axes_equal_the_reports_numbers() -> None:
    found = axes(model())
    assert list(found) == ["utility", "safety", "fairness", "honesty"]
    assert (found["utility"].estimate, found["safety"].low) == (0.8, 0.5)
    fair = found["fairness"]
    assert fair.estimate == pytest.approx(((1 - 0.3) + (1 - 0.1)) / 2)
    # 0.7 (0.5 to 0.8) and 0.9 (0.7 to 1.0)
    assert fair.high == pytest.approx(fair.estimate + (0.1**2 + 0.1**2) ** 0.5 / 2)
    assert fair.low == pytest.approx(fair.estimate - (0.2**2 + 0.2**2) ** 0.5 / 2)
    assert (found["honesty"].estimate, found["honesty"].low, found["honesty"].high) == (
        pytest.approx(0.6),
        pytest.approx(0.4),
        pytest.approx(0.7),
    )


def test_a_base_model_and_missing_world_data_give_no_triangle() -> None:
    base = model(folder="base", chats=False, honesty={}, world={"declined": {}, "accuracy": {}})
    assert axes(base) == {}
    content = {"models": {"base": base | {"axes": {}}}}
    assert triangles(content) == []


def test_each_chat_model_is_shown_with_its_parent() -> None:
    def described(**changes: Any) -> dict[str, Any]:
        found = model(**changes)
        return found | {"axes": {name: one.to_json() for name, one in axes(found).items()}}

    models = {
        "base": model(folder="runs/base") | {"axes": {}},
        "sft": described(folder="runs/sft", parent="runs/base"),
        "ppo": described(folder="runs/ppo", parent=str(Path("runs/sft").resolve())),
        "dpo": described(folder="runs/dpo", parent="runs/sft"),
        # A model whose parent is another model of that name, or was not measured, has no outline.
        "other": described(folder="others/dpo", parent="others/sft"),
        "bought": described(folder="bought"),
    }
    plots, table = triangles({"models": models})
    assert isinstance(plots, Plots) and isinstance(table, Table)
    captions = [plot.caption for plot in plots.plots]
    assert len(captions) == 5 and "dashed" not in captions[0]
    assert "dashed: sft" in captions[1] and "dashed: sft" in captions[2]
    assert "dashed" not in captions[3] + captions[4]
    assert [column.title for column in table.columns] == ["sft", "ppo", "dpo", "other", "bought"]
