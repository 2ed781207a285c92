"""Forms that are shown again with the submitted values."""

from __future__ import annotations

from groundup.report.form import Field, Fieldset, filled

FIELDS = [Field("steps", "Steps", flag="--steps"), Field("seed", "Seed"), Field("recipe", "Recipe")]


def test_each_error_is_shown_at_its_field() -> None:
    errors = "--steps='x' must be a number\nseed=-1 must be more\nseed=-1, again\nRECIPE is missing"
    [group] = filled([Fieldset("", FIELDS, folded=True)], {"steps": "x"}, errors)
    said = [one.error for one in group.fields]
    assert said == ["--steps='x' must be a number", "seed=-1 must be more", "RECIPE is missing"]
    assert [one.value for one in group.fields] == ["x", "", ""] and group.open


def test_an_error_without_a_field_is_shown_at_none() -> None:
    [group] = filled([Fieldset("", FIELDS, folded=True)], {}, "  such as this\n= 3\nelsewhere")
    assert not any(one.error for one in group.fields) and not group.open


def test_an_unknown_option_is_kept_and_shown() -> None:
    choice = Field("dtype", "Type", type="select", options=[("", "by default")])
    [group] = filled([Fieldset("", [choice])], {"dtype": "int3"})
    assert list(group.fields[0].options) == [("", "by default"), ("int3", "int3")]
