"""The part of a model card that comes from reports: what was measured of a model, and what was not.

The sections are those of Mitchell et al. 2019, "Model cards for model reporting", section 4, except
the model's details and training data, which the stage that made the model has written above. They
are between two marks in README.md; the user's own text around them stays as it is. Every command's
report gives an `Account`, and all accounts are presented alike.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from groundup.errors import UserError
from groundup.evals.cards.account import Account
from groundup.evals.cards.others import (
    core_account,
    frontier_account,
    harness_account,
    journey_account,
    redteam_account,
    rewards_account,
    tuning_account,
)
from groundup.evals.cards.values import values_account
from groundup.evals.values.suite.page import has_interval
from groundup.formats.adapter import model_hash
from groundup.formats.folder import CARD
from groundup.report.claim import Outcome, by_outcome
from groundup.report.estimate import Estimate
from groundup.report.table import DASH, listing
from groundup.runs.console import counted
from groundup.runs.content import same_as
from groundup.runs.files import errors_naming, is_sealed, read_json_object, write_text
from groundup.runs.request import read_run

BEGIN = "<!-- groundup card: what stands between these marks is written anew by it -->"
END = "<!-- groundup card ends -->"

_USE = """\
## Intended use
Made for learning and studying how language models are made, aligned and measured, by anyone who
does so.

Out of scope: advice of any kind, decisions about people, texts that others take for checked, and
use as an assistant by people who have not read this card. The measurements below do not prove that
the model can be relied on."""

_CAVEATS = """\
## Ethical considerations and caveats
A score says how a model does on these items, not how it does on what people will ask it. A refusal
is a habit of wording, not a safeguard. Sets of stereotypes were written in few places, mostly in
the United States, and name few groups: that no gap was found does not mean that there is none.
Intervals cover what other items of the same sets could have given, but not other sets."""


@dataclass(frozen=True)
class Kind:
    """A command whose reports a card uses: its file, and the function that reads a model's part.

    `account` gets the report, the model's name in it, and the contents of run.json.
    """

    command: str
    file: str
    account: Callable[[Mapping[str, Any], str, Mapping[str, Any]], Account]


# By the stage that wrote the report, in the order of a card.
KINDS: Mapping[str, Kind] = {
    "values": Kind("groundup eval values", "report.json", values_account),
    "eval": Kind("groundup eval report", "report.json", journey_account),
    "core": Kind("groundup eval core", "core.json", core_account),
    "lm-eval": Kind("groundup eval lm-eval", "harness.json", harness_account),
    "tuning": Kind("groundup eval tuning", "report.json", tuning_account),
    "comparison": Kind("groundup eval rewards", "result.json", rewards_account),
    "redteam": Kind("groundup redteam", "redteam.json", redteam_account),
    "frontier": Kind("groundup frontier", "frontier.json", frontier_account),
}
_COMMANDS = listing([kind.command for kind in KINDS.values()])


@dataclass(frozen=True)
class Report:
    """A report on disk, with the contents of its run.json, if there is one."""

    kind: Kind
    file: Path
    run: Mapping[str, Any]

    def content(self) -> dict[str, Any]:
        return read_json_object(self.file)


def write_card(model: Path, reports: Sequence[Path] = ()) -> Path:
    """Write what reports measured of a model into its README.md; the rest of the file stays.

    `reports` are folders, or the files of numbers in them; by default all reports next to the
    model's folder that measured it. Raises `UserError` for a report that is damaged or measured
    other weights, if there is no report, and for a README.md with incomplete marks.
    """
    if not model.is_dir():
        raise UserError(f"{model} is a single file; a card is part of a model's folder")
    of_model = same_as(model)
    found = [_opened(path, model) for path in reports] or list(_beside(model, of_model))
    if not found:
        raise UserError(
            f"no report next to {model} measured it; measure it (groundup eval values {model}), "
            "and give that report's folder with --reports"
        )
    order = list(KINDS.values())
    found.sort(key=lambda one: order.index(one.kind))
    section = card_section([_account_of(one, model, of_model) for one in found], model)
    path = model / CARD
    with errors_naming(path):
        kept = path.read_bytes() if path.is_file() else f"# {model.name}\n".encode()
    try:
        before = kept.decode("utf-8")
    except UnicodeDecodeError:
        raise UserError(f"{path} must be UTF-8 text for a card to be added; save it so") from None
    write_text(path, with_section(before, section, path))
    return path


# Reports.


def _opened(path: Path, model: Path) -> Report:
    """The report at a path, a folder or a file."""
    if not path.exists():
        raise UserError(
            f"there is no report {str(path)!r}; measure the model: groundup eval values {model}"
        )
    folder = path if path.is_dir() else path.parent
    run = read_run(folder) if is_sealed(folder / "run.json") else {}
    kind = KINDS.get(run["stage"]) if run else None
    if not run and read_json_object(folder / "report.json").get("suite") == "values":
        kind = KINDS["values"]  # its models are identified by their own hashes
    if kind is None:
        raise UserError(f"{path} is not a report of {_COMMANDS}; give the folder of one")
    return Report(kind, folder / kind.file, run)


Comparing = Callable[[Mapping[str, Any]], bool]


def _beside(model: Path, of_model: Comparing) -> Iterator[Report]:
    """The reports that measured the model, in the folder that contains the model's folder."""
    for folder in sorted(model.absolute().parent.iterdir()):
        run: Mapping[str, Any] = {}
        with contextlib.suppress(UserError):  # another folder, or a damaged one
            run = read_run(folder)
        kind = KINDS.get(run["stage"]) if run else None
        if kind is None or not (folder / kind.file).is_file():
            continue
        if any(map(of_model, run["parents"].values())):
            yield Report(kind, folder / kind.file, run)


def _account_of(report: Report, model: Path, of_model: Comparing) -> tuple[Report, str, Account]:
    """A report, its date, and what it says about these weights."""
    kind, content = report.kind, report.content()
    try:
        name = _name_in(content, report, model, of_model)
        if name is None:
            raise UserError(
                f"{report.file} measured other weights than those in {model}; measure it: "
                f"{kind.command} {model}"
            )
        created = content.get("created") or report.run["started"]
        return report, f"{created:.10}", kind.account(content, name, report.run)
    except (LookupError, TypeError, AttributeError, ValueError, StopIteration):
        raise UserError(
            f"{report.file} lacks results that {kind.command} measures; measure the model "
            f"again: {kind.command} {model}"
        ) from None


def _name_in(
    content: Mapping[str, Any], report: Report, model: Path, of_model: Comparing
) -> str | None:
    """The name of these weights in a report."""
    if report.kind is KINDS["values"]:
        hashed = model_hash(model)
        return next((n for n, one in content["models"].items() if one["hash"] == hashed), None)
    names = {"model"} if report.kind is KINDS["frontier"] else content["models"].keys()
    parents = report.run["parents"].items()
    return next((name for name, one in parents if name in names and of_model(one)), None)


def with_section(card: str, section: str, path: Path) -> str:
    """The card with the section between its marks, appended if it had none."""
    marked = f"{BEGIN}\n{section}\n{END}"
    if (card.count(BEGIN), card.count(END)) == (0, 0):
        return f"{card.rstrip()}\n\n{marked}\n"
    if (card.count(BEGIN), card.count(END)) != (1, 1) or card.index(END) < card.index(BEGIN):
        raise UserError(
            f"{path} must have each mark of groundup card once ({BEGIN} and {END}); correct them, "
            "or remove both"
        )
    return card[: card.index(BEGIN)] + marked + card[card.index(END) + len(END) :]


# Sections.

_SAID_OF_CLAIMS: tuple[Outcome, ...] = ("worse", "better")
Accounts = Sequence[tuple[Report, str, Account]]


def card_section(entries: Accounts, model: Path) -> str:
    """Intended use, factors, metrics, results and their basis, data, and caveats."""
    accounts = [account for _, _, account in entries]
    data = _points(*(one.data for one in accounts))
    limits = _points(*(one.limits for one in accounts))
    sections = [
        _USE,
        _factors(accounts),
        f"## What was measured\nWeights {model_hash(model)[:16]}.",
        *(_measured(*one) for one in entries),
        _titled("Contamination", _points(*(one.familiar for one in accounts), end=".")),
        _titled("The judges", [line for one in entries for line in _judges(*one)]),
        _titled("What was not measured", _left(entries)),
        _titled("Evaluation data", [*data, *(["", "Limits of each:", *limits] if limits else [])]),
        _CAVEATS,
    ]
    return "\n\n".join(filter(None, sections))


def _titled(title: str, lines: Sequence[str]) -> str:
    """A section; empty without lines."""
    return "\n".join([f"## {title}", *lines]) if lines else ""


def _points(*groups: Sequence[str], end: str = "") -> list[str]:
    """All lines as bullet points, each once."""
    return [f"- {one}{end}" for one in dict.fromkeys(line for some in groups for line in some)]


def _factors(accounts: Sequence[Account]) -> str:
    said = "; ".join(dict.fromkeys(group for one in accounts for group in one.groups)) or "none"
    return (
        "## Factors and metrics\n"
        f"Groups of people were compared by: {said}. All texts are in English. Scores run from 0 "
        "to 1, the best possible; guessing or babble does not score 0 everywhere. Numbers have "
        "95 % intervals that resample whole groups of items that are not independent."
    )


def _measured(report: Report, created: str, account: Account) -> str:
    """What got worse, what got better, and every number."""
    lines = [f"### By {report.kind.command}", f"{created}; {account.how}."]
    sorted_out = by_outcome(account.claims)
    for outcome in _SAID_OF_CLAIMS if account.claims else ():
        claims = sorted_out[outcome]
        lines += ["", f"{outcome.capitalize()} than what it is compared with ({len(claims)}):"]
        lines += [f"- {one.title}: {one.shown}" for one in claims] or ["- nothing significant"]
    if untold := sorted_out["not significant"]:
        lines += ["", f"{counted(len(untold), 'more comparison')}: not significant."]
    lines += ["", "| what | value | 95 % interval | chance or ideal | items |"]
    lines += ["|---|---|---|---|---|"]
    for one in account.numbers:
        value, interval = shown(one.measured, one.share)
        beside = "" if one.level is None else _value(one.level, one.share)
        lines.append(f"| {one.what} | {value} | {interval} | {beside} | {one.measured.items:,} |")
    return "\n".join(lines)


def shown(found: Estimate, share: bool) -> tuple[str, str]:
    """A number and its interval, if it has one, as text; a share in percent."""
    ends = f"{_value(found.low, share)} to {_value(found.high, share)}"
    return _value(found.estimate, share), ends if has_interval(found) else DASH


def _value(value: float, share: bool) -> str:
    return f"{100 * value:.1f} %" if share else f"{value:z.3f}"


def _judges(report: Report, created: str, account: Account) -> Iterator[str]:
    """The judges, and how far each agrees with labels, where there are any."""
    for one in account.judged:
        yield f"- {report.kind.command}: {one}"
    for judge in account.judges:
        of_labels = [
            f"{what} {value} ({interval})"
            for what in ("precision", "recall")
            if judge[what] is not None
            for value, interval in [shown(Estimate(**judge[what]), True)]
        ]
        kappa, interval = shown(Estimate(**judge["kappa"]), False)
        yield (
            f"- {report.kind.command}: {judge['judge']}, against {judge['labels']}, "
            f"{judge['items']:,} answers: "
            f"{', '.join([*of_labels, f'kappa {kappa} ({interval})'])}"
        )


def _left(entries: Accounts) -> list[str]:
    """What each report left out, commands without a report, and what no command measures."""
    lines = []
    for report, _, account in entries:
        lines += [f"By {report.kind.command}:", "", *_points(account.left), ""]
    there = [report.kind for report, _, _ in entries]
    lines += ["By no report:", ""]
    lines += [
        f"- {kind.command}: no report was given" for kind in KINDS.values() if kind not in there
    ]
    lines += [
        "- Other languages than English, long conversations, tools, images.",
        "- Real users, and attacks by people who look for a way around its conduct.",
        "- Privacy: whether it repeats what it has read.",
    ]
    return lines
