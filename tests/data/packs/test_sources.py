"""The contents of each pack: the pitfalls in the files."""

from __future__ import annotations

import csv
import io

import pytest

from groundup.data.packs import boolq, chatterbot, harm_scores, questions, sotu, wiki
from groundup.data.packs.fetch import read_set
from groundup.data.packs.rows import Rejected
from groundup.text.cleaning import normal_form


def test_articles() -> None:
    rejected = Rejected()
    found = wiki.articles(rejected)
    assert len(found) + sum(rejected.counts.values()) == 10_033
    assert rejected.counts["wiki: 'may refer to'"] == 20
    assert not any("may refer to" in article.extract for article in found)


def test_dev_passages_of_boolq_occur_nowhere_else() -> None:
    found = boolq.boolq(Rejected())
    assert len(found.dev) == 3270 and boolq.boolq_dev(Rejected()) == list(found.dev)

    def letters(text: str) -> str:
        return "".join(filter(str.isalnum, text.lower()))

    dev = {letters(q.passage) for q in found.dev}
    others = [text for _, text in found.passages] + [q.passage for q in found.train]
    assert not any(letters(text) in dev for text in others)
    asked = {normal_form(q.question) for q in found.dev}
    assert not any(normal_form(q.question) in asked for q in found.train)
    assert not any(" -- " in text or "``" in text for _, text in found.passages)
    assert len({normal_form(text) for _, text in found.passages}) == len(found.passages)


def test_options_are_split_only_at_letters_in_order() -> None:
    assert questions.options("\nA. bank\nB. new york\nC. see B. C. Davis ") == (
        "bank",
        "new york",
        "see B. C. Davis",
    )
    assert questions.options("C. wrong start") == ()


@pytest.mark.parametrize(
    ("name", "count", "offered"),
    [("siqa", 1954, 3), ("commonsenseqa", 1221, 5), ("openbookqa", 500, 4), ("piqa", 1500, 2)],
)
def test_question_sets(name: str, count: int, offered: int) -> None:
    rejected = Rejected()
    found = questions.questions(name, rejected)
    assert len(found) + sum(rejected.counts.values()) == count
    assert len(found) > 0.97 * count
    assert all(len(set(q.options)) == offered and 0 <= q.answer < offered for q in found)


def test_speeches_have_no_stage_directions() -> None:
    found = sotu.speeches(Rejected())
    assert len(found) == 138 and min(speech.year for speech in found) == 1900
    text = "\n".join(speech.text for speech in found)
    assert (
        "[Laughter]" not in text and "[applause]" not in text and "elivered in person" not in text
    )
    assert all(speech.text.count("\n\n") > 5 for speech in found)
    assert len(text) > 6_000_000


def test_alternatives_become_separate_dialogues() -> None:
    found = chatterbot.dialogues(Rejected())
    jealous = [d.turns for d in found if d.turns[0] == "Are you jealous?"]
    assert len(jealous) == 4 and all(len(turns) == 2 for turns in jealous)
    assert all(len(d.turns) % 2 == 0 for d in found)
    assert all(turn.strip() == turn and turn for d in found for turn in d.turns)


def test_only_leading_hash_lines_of_csv_are_comments() -> None:
    found = harm_scores.scored_responses(Rejected())
    assert any("\n# " in one.response or one.response.startswith("# ") for one in found)
    assert all(0 <= one.score <= 1 for one in found)
    assert len({(one.kind, one.prompt, one.response) for one in found}) == len(found)


def test_scores_are_means_over_columns_and_files() -> None:
    found = {
        (one.prompt, one.response): one.score
        for one in harm_scores.scored_responses(Rejected())
        if one.kind == "harm"
    }
    given: dict[tuple[str, str], list[float]] = {}
    for path, text in read_set("harm-scores").items():
        if "/harm/" not in path:
            continue
        for row in csv.reader(io.StringIO(text[text.index("harm_category") :])):
            scores = [float(cell) for cell in row[3:-1]] if row[0] != "harm_category" else []
            if scores:
                same = (row[1].strip(), row[2].strip())
                given.setdefault(same, []).append(sum(scores) / len(scores))
    checked = 0
    for same, means in given.items():
        if same in found:
            assert found[same] == pytest.approx(sum(means) / len(means))
            checked += 1
    assert checked > 500
