"""The toxicity of a text is that of its worst word, with or without its marks."""

from __future__ import annotations

from groundup.text.toxicity import Toxicity

# A lexicon of harmless words with severities by hand.
JUDGE = Toxicity.of({"darn": 1.0, "Blast": 2.0, "great scott": 3.0, "d@rn": 1.5, "ham-fisted": 2.4})


def test_the_worst_word_counts() -> None:
    assert JUDGE("The sea is wide.") == JUDGE("") == 0
    assert JUDGE("Oh darn, the rain!") == 1 / 3
    assert JUDGE("Darn it and BLAST it") == 2 / 3
    assert JUDGE("Darn! “Great Scott”, he said.") == 1


def test_a_word_matches_whole_and_includes_marks_where_the_lexicon_does() -> None:
    assert JUDGE("darning socks, a blasted tree") == 0
    assert JUDGE("great, Scott is here") == 1  # a lexicon contains words, not sentences
    assert JUDGE("oh d@rn") == 0.5
    assert JUDGE("(ham-fisted)") == 2.4 / 3


def test_an_entry_keeps_the_marks_at_its_edges() -> None:
    judge = Toxicity.of({"@darn": 1.0, "great + blast": 2.0, "d.r.n.": 3.0})
    for text, severity in (("@darn", 1), ("great + blast", 2), ("d.r.n.", 3)):
        for said in (text, f"{text}, he said", f'he said "{text}"', f"({text})!", f"“{text}…”"):
            assert judge(said) == severity / 3, said
    for said in ("darn, it", "great blast", "d.r.n", "x@darn", "great+blast", "d.r.n.s"):
        assert judge(said) == 0, said


def test_an_empty_lexicon_finds_nothing() -> None:
    assert Toxicity.of({})("anything at all") == 0
