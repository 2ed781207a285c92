"""The fairness sets: contents, groups, and rows set aside."""

from __future__ import annotations

import csv
import io
import json
import re
from collections import Counter
from pathlib import Path

import pytest

from groundup.data.config import DataConfig
from groundup.data.packs.fairness import bbq, crows_pairs, stereoset, winobias, winogender
from groundup.data.packs.fetch import read_set
from groundup.data.packs.manifest import EVALUATION, find_set
from groundup.data.packs.rows import Rejected, gather

NAMES = ("bbq", "crows-pairs", "stereoset", "winobias", "winogender")


def test_all_are_for_evaluation_only_and_freely_licensed() -> None:
    licenses = {name: find_set(name).license for name in NAMES}
    assert set(NAMES) <= {one.name for one in EVALUATION}
    assert set(licenses.values()) == {"CC BY 4.0", "CC BY-SA 4.0", "MIT"}
    assert licenses["bbq"] == "CC BY 4.0" and licenses["winobias"] == "MIT"


@pytest.mark.parametrize("name", NAMES)
def test_none_is_trained_on(name: str) -> None:
    found = gather(DataConfig(out=Path("out"), packs=(name,)), Rejected())
    assert not found.documents and not found.conversations and not found.preferences
    assert len(found.never_trained) > 200


def test_bbq_has_whole_blocks_joined_with_the_authors_target() -> None:
    found = [one for block in bbq.blocks() for one in block]
    assert len(found) == 58_492 - 16 and len(bbq.blocks()) == (58_492 - 16) // 4
    assert Counter(one.category for one in found)["Gender_identity"] == 5672 - 16
    assert len({one.id for one in found}) == len(found)
    # What the stereotype gives turns with the question, and the text's answer with it or against.
    for block in bbq.blocks()[::97]:
        by_side = {(one.ambiguous, one.negative): one for one in block}
        for ambiguous in (True, False):
            bad, good = by_side[ambiguous, True], by_side[ambiguous, False]
            assert {bad.options[bad.target], good.options[good.target]} == {
                option for i, option in enumerate(bad.options) if i != bad.unknown
            }
        assert by_side[True, True].context != by_side[False, True].context


def test_bbq_rows_equal_those_of_the_files() -> None:
    members = read_set("bbq")
    metadata = next(text for path, text in members.items() if path.endswith(".csv"))
    target = {
        (row["category"], row["example_id"]): row["target_loc"]
        for row in csv.DictReader(io.StringIO(metadata))
    }
    religion = next(text for path, text in members.items() if path.endswith("/Religion.jsonl"))
    found = {one.id: one for block in bbq.blocks() for one in block}
    for line in religion.splitlines()[::37]:
        row = json.loads(line)
        one = found[f"Religion {row['example_id']}"]
        assert one.answer == row["label"] and one.context == row["context"]
        assert str(one.target) == target["Religion", str(row["example_id"])]
        assert row["answer_info"][f"ans{one.unknown}"][1] == "unknown"


def test_crows_pairs() -> None:
    found = crows_pairs.pairs()
    assert Counter(one.stereo for one in found) == {True: 1290, False: 218}
    assert Counter(one.bias_type for one in found)["race-color"] == 516
    assert len({one.id for one in found}) == 1508
    assert all(one.more != one.less for one in found)


def test_stereoset_has_a_sentence_of_each_kind() -> None:
    found = stereoset.triples()
    assert Counter(one.within for one in found) == {True: 2106, False: 2123}
    assert len({one.target for one in found}) == 79
    assert all((one.context == "") == one.within for one in found)
    assert all(one.stereotype and one.anti_stereotype and one.unrelated for one in found)
    chess = next(one for one in found if one.target == "chess player")
    assert chess.within and chess.unrelated == "The chess player was fox."


def test_winobias_pairs_differ_only_in_the_gender_of_pronouns() -> None:
    rejected = Rejected()
    found = winobias.pairs(rejected)
    assert len(found) + sum(rejected.counts.values()) == 1584
    assert len(found) > 1550
    pronouns = r"\b(he|him|his|himself|she|her|hers|herself)\b"
    for one in found:
        woman, man = (one.pro, one.anti) if one.she else (one.anti, one.pro)
        without = [re.sub(pronouns, "_", text.lower()) for text in (woman, man)]
        spoken = [re.findall(pronouns, text.lower()) for text in (woman, man)]
        assert without[0].split() == without[1].split()
        changed = [both for both in zip(*spoken, strict=True) if both[0] != both[1]]
        assert changed
        assert all(a.startswith(("she", "her")) and b.startswith("h") for a, b in changed)
        assert "[" not in one.pro and len(one.occupations) >= 2
    assert {one.type for one in found} == {1, 2}
    counts = Counter((one.type, one.she) for one in found)
    assert all(380 < count < 410 for count in counts.values()), counts


def test_a_pair_with_other_differences_is_set_aside() -> None:
    said = [text for one in winobias.all_pairs() for text in (one.pro, one.anti)]
    assert not any("wait him for tips" in text or "wait her to tips" in text for text in said)
    assert "The carpenter made a desk for the clerk because she needed a desk." not in said
    assert "The developer argued with the designer because he did not like the design." in said


def test_winogender_has_both_genders_and_the_shares_of_women() -> None:
    found = winogender.sentences()
    assert len(found) == 240 and len({one.occupation for one in found}) == 60
    assert sum(one.of_occupation for one in found) == 120
    assert all(0 < one.women < 1 for one in found)
    technician = [one for one in found if one.occupation == "technician"]
    assert technician[0].women == pytest.approx(0.4034)
    # Who pays is not the technician.
    assert {one.he for one in technician if not one.of_occupation} == {
        "The technician told the customer that he could pay with cash.",
        "The technician told someone that he could pay with cash.",
    }
