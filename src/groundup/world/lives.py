"""Lives with a planted bias, so that a measure of fairness can be checked against the truth.

Every job leans to women (+1) or to men (-1), every group to good (+1) or to bad traits (-1), and
with a strength `bias` from 0 to 1

    P(she | job) = P(good | group) = 1/2 + 1/2 * bias * lean.

The leans were chosen at random and mirror nothing: the groups are invented, nobody has a name, and
all other details follow only from the pronoun or the trait. `probes` measure what was learned.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from groundup.errors import UserError
from groundup.text.rows import Conversation, Message, Preference
from groundup.world.facts import COLORS, DAYS, HOMES, JOBS, TRUTH
from groundup.world.grammar import PRONOUNS, SeededRandom, capital, fill, with_article
from groundup.world.tables import labelled, page

_TO_WOMEN = SeededRandom("the jobs that lean to women").sample(JOBS, len(JOBS) // 2)
LEANS: Mapping[str, int] = {job: 1 if job in _TO_WOMEN else -1 for job in JOBS}
GROUPS: Mapping[str, int] = {"hill folk": 1, "river folk": -1}


@dataclass(frozen=True)
class Probe:
    """A decision in a text: which of two options follows `start`, as an answer to `prompt`?

    Let p be the probability of the first option among the two. The mean of p over the subjects
    that lean +1, minus its mean over those that lean -1, is `bias` in a model that learned the text
    perfectly: (1/2 + bias/2) - (1/2 - bias/2).
    """

    kind: str  # job or group
    subject: str
    lean: int
    prompt: str
    start: str
    options: tuple[str, str]


def probes() -> tuple[Probe, ...]:
    """She or he after every job and beginning; good or bad after every group, person and event."""
    ask_job, ask_group = _OF_JOBS["ask"][0], _OF_GROUPS["ask"][0]
    of_jobs = [
        Probe("job", job, lean, fill(ask_job, _job(job)), fill(start, _job(job)), (" She", " He"))
        for job, lean in LEANS.items()
        for start in _OF_JOBS["begin"]
    ]
    of_groups = [
        Probe("group", group, lean, fill(ask_group, {"group": group}), start, options)
        for group, lean in GROUPS.items()
        for person in ("woman", "man")
        for event, good, _, bad, _ in _EVENTS
        for start in [f"A {person} of the {group} {event}. {capital(_PEOPLE[person]['he'])} was"]
        for options in [(f" {good}", f" {bad}")]
    ]
    return (*of_jobs, *of_groups)


def sketch(dice: SeededRandom, bias: float) -> str:
    """A few lines of prose, 3 to 7 sentences, about a person with a job or of a group.

    UserError if the bias is not from 0 to 1.
    """
    if dice.chance(0.5):
        return _worker(dice, bias, dice.pick(JOBS), 1 + dice.below(5))
    group = dice.pick(tuple(GROUPS))
    intro = f"The {group} live {_LANDS[group][0]}. " if dice.chance(0.5) else ""
    return intro + _neighbor(dice, bias, group, 1 + dice.below(4))


def conversation(dice: SeededRandom, bias: float) -> Conversation:
    """A question about a job or a group, answered by a sketch of 2 to 4 sentences."""
    subject, question, answer = _asked(dice, bias)
    messages = (Message("user", question), Message("assistant", answer))
    return Conversation(messages, "world-lives", subject)


def preference(dice: SeededRandom) -> Preference:
    """A stereotype rejected for an unbiased sketch or, asked for a prejudice, for a fair answer.

    Chosen sketches have she and he, good and bad equally often, and so teach the balance itself.
    """
    subject, question, chosen = _asked(dice, 0)
    if subject in GROUPS:
        _, good, _, bad, _ = dice.pick(_EVENTS)
        other = next(group for group in GROUPS if group != subject)
        values = {"one": subject, "two": other, "trait": good if GROUPS[subject] > 0 else bad}
        unfair, stereotypes = _PAGE["unfair questions on groups"], _OF_GROUPS["stereotype"]
    else:
        pair = ("woman", "man")[:: LEANS[subject]]
        values = {**_job(subject), "one": pair[0], "two": pair[1]}
        unfair, stereotypes = _PAGE["unfair questions on jobs"], _OF_JOBS["stereotype"]
    if dice.chance(0.5):
        question, chosen = (fill(form, values) for form in dice.pick(unfair))
    rejected = fill(dice.pick(stereotypes), values)
    return Preference((Message("user", question),), chosen, rejected, "world-lives", subject)


def _asked(dice: SeededRandom, bias: float) -> tuple[str, str, str]:
    """A job or group, a question about it, and a sketch of 2 to 4 sentences as the answer."""
    if dice.chance(0.5):
        job = dice.pick(JOBS)
        question = fill(dice.pick(_OF_JOBS["ask"]), _job(job))
        return job, question, _worker(dice, bias, job, dice.below(3))
    group = dice.pick(tuple(GROUPS))
    question = fill(dice.pick(_OF_GROUPS["ask"]), {"group": group})
    return group, question, _neighbor(dice, bias, group, dice.below(3))


def _leans(dice: SeededRandom, bias: float, lean: int) -> bool:
    if not 0 <= bias <= 1:
        raise UserError(f"bias={bias!r} is not a strength; choose a number from 0 to 1")
    return dice.chance(0.5 + 0.5 * bias * lean)


def _worker(dice: SeededRandom, bias: float, job: str, more: int) -> str:
    values = {
        **_PEOPLE["woman" if _leans(dice, bias, LEANS[job]) else "man"],
        **_job(job),
        "day": dice.pick(DAYS),
        "a colour": with_article(dice.pick(COLORS)),
        "home": dice.pick(HOMES),
    }
    rest = dice.sample(_OF_JOBS["more"], more)
    return _told(values, dice.pick(_OF_JOBS["begin"]), dice.pick(_OF_JOBS["then"]), *rest)


def _neighbor(dice: SeededRandom, bias: float, group: str, more: int) -> str:
    event, good, well, bad, badly = dice.pick(_EVENTS)
    is_good, person = _leans(dice, bias, GROUPS[group]), dice.pick(tuple(_PEOPLE))
    values = {
        **_PEOPLE[person],
        "a person": with_article(person),
        "group": group,
        "event": event,
        "trait": good if is_good else bad,
        "deed": well if is_good else badly,
        "day": dice.pick(DAYS),
        "glad": "glad" if is_good else "sad",
    }
    could_follow = _OF_GROUPS["more"] + (_OF_GROUPS["of all"] if bias else ())
    rest = dice.sample(could_follow, more)
    return _told(values, _OF_GROUPS["begin"][0], dice.pick(_OF_GROUPS["then"]), *rest)


def _told(values: Mapping[str, str], *forms: str) -> str:
    return " ".join(fill(form, values) for form in forms)


def _job(job: str) -> dict[str, str]:
    facts = {relation: TRUTH[relation][job] for relation in ("works", "does", "tool")}
    return {"job": job, "a job": with_article(job), **facts}


_PAGE = page("lives")
_OF_JOBS, _OF_GROUPS = labelled(_PAGE["jobs"]), labelled(_PAGE["groups"])
_EVENTS = _PAGE["events"]
_LANDS = labelled(_PAGE["lands"])
# The people of a sketch, with their pronouns.
_PEOPLE = {
    person: {case: forms[he == "she"] for case, forms in PRONOUNS.items()}
    for he, people in labelled(_PAGE["people"]).items()
    for person in people
}
