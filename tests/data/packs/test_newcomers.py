"""First messages of users: every wording fits its answer, sides are disjoint, nothing leaks."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest

from groundup.data.config import DataConfig
from groundup.data.packs import newcomers
from groundup.data.packs.newcomers import (
    ANSWERS,
    NEWCOMER,
    TURNS,
    Newcomers,
    Topics,
    fits,
    says_unknown,
)
from groundup.data.packs.questions import Question, answered, preferences
from groundup.data.packs.wiki import Article
from groundup.text.cleaning import normal_form
from groundup.text.rows import Conversation, Message
from groundup.text.saying_no import is_refusal
from groundup.world import conduct, pack
from groundup.world.answers import is_heldout_sum
from groundup.world.facts import TRUTH, heldout_pairs
from groundup.world.grammar import slots
from groundup.world.kinds import KINDS
from groundup.world.questions import parse
from groundup.world.tables import labelled, page

ARTICLES = [
    Article("Volcano", "A volcano is a hole in the ground. Hot rock comes out.", "Hill", "Earth"),
    Article("Diving (sport)", "Diving is a sport. Divers jump.", "Water sport", "Everyday life"),
    Article("Ada Lovelace", "Ada Lovelace was a writer. She wrote much.", "Writer", "People"),
    Article("Oslo", "Oslo is a city in Norway. Many people live there.", "Capital", "Geography"),
    Article("Red fox", "The red fox is a mammal. It hunts.", "Mammal", "Biology"),
]
DECLINING = ("unknown", "noise", "foreign", "capitals", "sum", "wish", "code", "no such story")
DECLINING += ("more", "why", "now", "asker", "online")


@pytest.fixture(scope="module")
def trained() -> list[Conversation]:
    made = Newcomers(Topics.of(ARTICLES))
    return [made.conversation(0, i) for i in range(4000)]


@pytest.fixture(scope="module")
def heldout() -> list[Conversation]:
    made = Newcomers(Topics.of(ARTICLES), heldout=True)
    return [made.conversation(0, i) for i in range(500)]


def test_every_answer_is_used_and_every_turn_has_one() -> None:
    labels = {turn.label for turn in TURNS if turn.source != NEWCOMER + "known"}
    assert labels == set(ANSWERS)


def test_exactly_the_declining_answers_say_so() -> None:
    for label, row in ANSWERS.items():
        for answer in row:
            expected = label in DECLINING or "know only" in answer
            assert says_unknown(answer) == expected, answer
            # Not knowing is no refusal, or every honest answer would count as one.
            assert is_refusal(answer) == (label in ("harm", "despair")), answer
    assert all(conduct.declines(answer) for answer in ANSWERS["harm"])


def test_answers_of_the_small_world_do_not_decline() -> None:
    found = (pack.conversation(3, i) for i in range(1500))
    for one in found:
        if one.source != "world-unknown":
            assert not says_unknown(one.messages[-1].content), one


def test_other_wordings_are_recognized() -> None:
    for said in ("I don't know.", "I really do not know.", "I’m sorry, I can’t tell you that."):
        assert says_unknown(said)
    for said in ("I have no idea.", "I am not really sure.", "I’ve never heard of it."):
        assert says_unknown(said)
    for said in ("A volcano is a mountain.", "", "I know that: 7.", "He did not eat."):
        assert not says_unknown(said)


def test_an_answer_fits_by_its_label_or_by_saying_unknown() -> None:
    assert fits("You are welcome!", "you are welcome. Ask me anything else.")
    assert fits("I do not understand what you mean.", "I have read too little to know that.")
    assert not fits("You are welcome!", "Hello! How can I help you?")
    assert not fits("I do not know what that means.", "A piano is a city in Norway.")
    assert not fits("The fox eats berries.", "I do not know that. I have read too little.")


def test_a_harmful_request_may_be_declined_in_any_words() -> None:
    wanted = ANSWERS["harm"][0]
    assert fits(wanted, "I'm sorry, I can't assist with that request.")
    assert fits(wanted, "I can't help with that, because it could hurt somebody.")
    assert not fits(wanted, "First, wait until it is dark.")
    # Despair is never answered with no, and a bare no answers a question.
    assert not fits(ANSWERS["despair"][0], "I will not help with that.")
    assert not fits("No.", "I will not help with that.")


def test_no_wording_is_on_both_sides() -> None:
    for turn in TURNS:
        # The values of a bare slot differ between the sides; a wording does not.
        said = [
            {normal_form(f) for f in side if "{" not in f} for side in (turn.train, turn.heldout)
        ]
        assert turn.train and turn.heldout and not said[0] & said[1], turn.name


def test_no_training_wording_is_a_held_out_one_of_the_world() -> None:
    """For any slot values: the same question about others is the same wording."""

    def wording(form: str) -> str:
        return normal_form(re.sub(r"\{[^}]*\}", "slot", form))

    of_world = labelled(page("conduct")["wordings"])["held out"]
    held = {wording(form) for form in (*of_world, *(f for kind in KINDS for f in kind.heldout))}
    assert {wording("Teach me how to {act}."), "tell me a short story"} < held
    assert not [form for turn in TURNS for form in turn.train if wording(form) in held]


def test_the_worlds_questions_have_the_worlds_answers() -> None:
    """The same words with two right answers would contradict each other."""
    for turn in newcomers.TURNS:
        wanted = ANSWERS.get(turn.label, ("",))[0]
        for form in (*turn.train, *turn.heldout) if wanted else ():
            asked = None if slots(form) else parse([Message("user", form)])
            if asked is not None and asked.kind.source == "world-talk":
                assert fits(wanted, asked.answer.text), form
    for name, acts in newcomers.ACTS.items():
        alike = (True, None) if name.startswith("harmful") else (None,)
        assert [act for act in acts if conduct.is_harmful(f"How can I {act}?") not in alike] == []


def test_harmful_and_benign_requests_have_the_same_wordings() -> None:
    """Only the act distinguishes them, and no test uses an act of training."""
    sides = [set(newcomers.ACTS[name]) for name in newcomers.ACTS]
    assert sum(map(len, sides)) == len(set.union(*sides))
    harms, does_not = (turn for turn in TURNS if turn.name == "in full")
    for ours, theirs in ((harms.train, does_not.train), (harms.heldout, does_not.heldout)):
        assert [form.replace("{harmful}", "{harmless}") for form in ours] == list(theirs)
    assert is_refusal(ANSWERS[harms.label][0]) and says_unknown(ANSWERS[does_not.label][0])


def test_harmful_requests_of_users_are_declined(
    trained: list[Conversation], heldout: list[Conversation]
) -> None:
    for side in (trained, heldout):
        asked = [one for one in side if one.source in ("newcomer-harm", "newcomer-despair")]
        assert len(asked) > 0.05 * len(side)
        assert all(is_refusal(one.messages[1].content) for one in asked)


def test_despair_is_answered_differently_from_sadness() -> None:
    """DPO lowers one answer, as the worse of a pair, and not the other."""
    openings = {label: {row.split(".")[0][:20] for row in ANSWERS[label]} for label in ANSWERS}
    assert not openings["despair"] & {
        one for k, v in openings.items() if k != "despair" for one in v
    }
    (turn,) = (turn for turn in TURNS if turn.source == "newcomer-despair")
    assert turn.label == "despair" and not set(turn.train) & set(turn.heldout)


def test_harm_and_despair_in_capitals_are_answered_as_in_lower_case() -> None:
    """And a user in despair is not told to write in lower case."""
    asks = {turn.name: turn.train + turn.heldout for turn in TURNS}
    needy = {form.upper() for name in ("in a few words", "despair", "sad") for form in asks[name]}
    for heldout_side in (False, True):
        made = Newcomers(Topics.of(ARTICLES), heldout=heldout_side)
        said = [made.conversation(1, i).messages for i in range(4000)]
        loud = [turns for turns in said if turns[0].content.isupper()]
        for asked, answer, *_ in loud:
            if answer.content in ANSWERS["capitals"]:
                assert not any(asked.content.startswith(form) for form in needy), asked
        answers = [turns[1].content for turns in loud]
        assert sum(answer in ANSWERS["harm"] for answer in answers) > 10
        assert sum(answer in ANSWERS["despair"] for answer in answers) > 10
        assert sum(answer in ANSWERS["capitals"] for answer in answers) > 10


def test_items_are_functions_of_their_number_and_all_sources_occur(
    trained: list[Conversation],
) -> None:
    again = Newcomers(Topics.of(ARTICLES))
    assert [again.conversation(0, i) for i in range(20)] == trained[:20]
    assert [again.conversation(1, i) for i in range(20)] != trained[:20]
    counts = Counter(one.source for one in trained)
    assert set(counts) == {NEWCOMER + source for source in newcomers.SOURCES}
    shares = newcomers._SHARES
    for source, share in shares.items():
        assert counts[NEWCOMER + source] > 0.7 * share / sum(shares.values()) * len(trained), source


def test_turns_alternate_and_all_slots_are_filled(
    trained: list[Conversation], heldout: list[Conversation]
) -> None:
    for one in [*trained, *heldout]:
        assert [m.role for m in one.messages][:2] == ["user", "assistant"]
        assert len(one.messages) % 2 == 0
        assert all(m.content.strip() for m in one.messages)
        assert "{" not in one.messages[0].content


def test_most_prompts_occur_once(trained: list[Conversation]) -> None:
    """With many surface forms, the manner is learned rather than a list."""
    of_noise = [normal_form(m.messages[0].content) for m in trained if m.source == "newcomer-noise"]
    assert len(set(of_noise)) > 0.6 * len(of_noise)


def test_titles_have_no_brackets_and_are_not_the_worlds() -> None:
    topics = Topics.of(ARTICLES)
    assert set(topics.things) == {"a volcano", "diving"} or "Diving" in topics.things
    assert topics.people == ["Ada Lovelace"] and topics.places == ["Oslo"]
    assert not any("fox" in thing for thing in topics.things)
    assert Topics.of([]).things


def test_questions_about_the_world_are_answered_correctly(trained: list[Conversation]) -> None:
    acts = {act.form for act in conduct.acts(heldout=False)}
    known = [one for one in trained if one.source == "newcomer-known" and one.group not in acts]
    true = {
        kind.answer({kind.subject: about}).text
        for kind in KINDS
        if kind.follow and not kind.name.startswith("check")
        for about in newcomers.RELATIONS[kind.name]
    }
    told = 0
    for one in known:
        answer = one.messages[-1].content
        assert not says_unknown(answer) and not heldout_pairs(answer)
        first = answer.partition(". ")[0].removesuffix(".") + "."
        told += first in true
    # Sums and counting are tested below.
    in_words = [one for one in known if not re.search("[0-9]", one.messages[-1].content)]
    assert told > 0.3 * len(in_words) > 0.15 * len(known)


def test_questions_in_the_plural_are_answered_about_the_right_subject(
    trained: list[Conversation],
) -> None:
    for asked, relation, subject in (
        ("what do mice like to eat", "eats", "mouse"),
        ("WHERE DO GEESE LIVE?", "home", "goose"),
        ("What do bakers do?", "does", "baker"),
        ("hey, what can I do with scarves", "use", "scarf"),
    ):
        (kind,) = (kind for kind in KINDS if kind.name == relation)
        right = kind.answer({kind.subject: subject}).text
        assert newcomers._fact(relation, asked) == right
        assert TRUTH[relation][subject] in right
    first = [one.messages[0].content.lower() for one in trained if one.source == "newcomer-known"]
    assert sum(bool(re.search(r"\b(?:mice|dogs|geese|bears|foxes)\b", text)) for text in first) > 3
    # The same wordings with other nouns are answered by not knowing.
    others = [one for one in trained if "olcano" in one.messages[0].content]
    unknown = [one for one in others if re.search(r"live|eat|for\b", one.messages[0].content)]
    assert len(unknown) > 5 and all(says_unknown(one.messages[1].content) for one in unknown)
    assert any("volcanoes" in one.messages[0].content for one in unknown)
    words = Topics.of([Article("Dogs", "Dogs are animals. They bark.", "Foxes and mice", "Life")])
    assert not {"dogs", "foxes", "mice"} & {*words.words, *words.things}


def test_the_worlds_requests_occur_in_the_newcomers_wordings(
    trained: list[Conversation], heldout: list[Conversation]
) -> None:
    acts = {act.form: act for act in conduct.acts(heldout=False)}
    known = [one for one in trained + heldout if one.source == NEWCOMER + "known"]
    found = [one for one in known if one.group in acts]
    assert len(found) > 100 and not set(map(id, found)) & set(map(id, heldout))
    for one in found:
        assert acts[one.group].side == "taught"
        answer = one.messages[-1].content
        assert conduct.declines(answer) == bool(acts[one.group].topic), one
        assert answer not in ANSWERS["harm"] and not says_unknown(answer)
    others = [one for one in found if conduct.asked_to(one.messages[0].content) is None]
    assert len(others) > 0.7 * len(found), "their own wordings"


def test_small_sums_are_solved_in_typed_forms(trained: list[Conversation]) -> None:
    solved = 0
    for one in trained:
        asked, answer = (m.content for m in one.messages[:2])
        found = re.fullmatch(r"(\d+) ([+-]) (\d+) = (\d+)\.", answer)
        if one.source == "newcomer-known" and found:
            first, second, result = (int(found[i]) for i in (1, 3, 4))
            assert result == (first + second if found[2] == "+" else first - second)
            assert not is_heldout_sum(first, second)
            solved += len(asked) < 9 and re.findall("[0-9]+", asked) == [found[1], found[3]]
    assert solved > 15


def test_it_counts_to_the_requested_number() -> None:
    for asked in ("count to five", "Count from 1 to 5."):
        assert newcomers._counted(asked) == "1, 2, 3, 4, 5."


def test_statements_about_the_world_are_true() -> None:
    dice = newcomers.SeededRandom("about")
    for asked in ("what is a fox", "Tell me about the lamp.", "baker?", "cherry"):
        about = asked.strip("?.").split()[-1]
        for _ in range(20):
            for sentence in newcomers._about(dice, asked).split(". "):
                said = sentence.removesuffix(".") + "."
                truths = [
                    k.answer({k.subject: about}).text
                    for k in KINDS
                    if k.subject in ("animal", "thing", "food", "job")
                    and k.follow
                    and about in newcomers.RELATIONS[k.name]
                ]
                assert said in truths or said.replace("It ", f"The {about} ", 1) in truths
    # `It` would be the cub.
    told = {newcomers._about(dice, "what is a tiger") for _ in range(60)}
    assert any("A young tiger" in one for one in told)
    assert not [one for one in told if one.startswith("A young tiger")]


def test_words_of_any_number_and_initial_give_correct_english() -> None:
    """{word} may be `interactions`, and {known} may be `sheep` or `bread`."""
    forms = [form for turn in TURNS for form in (*turn.train, *turn.heldout)]
    assert not [form for form in forms if re.search(r"\ban? \{word\}|\{\w+\}s\b", form)]


def test_pairs_teach_both_directions() -> None:
    made = Newcomers(Topics.of(ARTICLES))
    pairs = [made.preference(0, i) for i in range(300)]
    declined = Counter[bool]()
    for pair in pairs:
        assert pair.chosen != pair.rejected
        if pair.source == "newcomer-known":
            assert not says_unknown(pair.chosen)
            declined[says_unknown(pair.rejected)] += 1
        elif pair.source == "newcomer-real":
            assert not says_unknown(pair.rejected)
    assert 0.2 < declined[True] / declined.total() < 0.5
    assert {"newcomer-known", "newcomer-real", "newcomer-noise"} <= {p.source for p in pairs}


def test_open_questions_are_declined_and_offered_ones_answered() -> None:
    asked = Question("commonsenseqa", "Where is a basement?", "", "", ("house", "sea"), 0)
    declining = ANSWERS["unknown"]
    plain, offered = answered([asked], 0, declining)
    assert plain.messages[-1].content in declining
    assert offered.messages[-1].content == "house"
    assert [one.messages[-1].content for one in answered([asked], 0)] == ["house", "house"]
    (pair,) = preferences([asked], 1, 0, offered=True)
    assert "- sea" in pair.prompt[0].content and pair.chosen == "house"


def test_declining_requires_the_world(tmp_path: Path) -> None:
    DataConfig(out=tmp_path, unknown="declined")
    with pytest.raises(ValueError, match="add 'world' to the packs"):
        DataConfig(out=tmp_path, unknown="declined", packs=("wiki",))
