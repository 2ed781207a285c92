"""The data stage on the real packs: disjoint sides, and harm only in rejected answers."""

from __future__ import annotations

import functools
import json
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from groundup.data import build, leaks, records
from groundup.data.config import DataConfig
from groundup.data.corpus import documents as documents_of
from groundup.data.packs.boolq import boolq
from groundup.data.packs.harm_scores import scored_responses
from groundup.data.packs.manifest import generated_set
from groundup.data.packs.rows import Rejected
from groundup.errors import UserError
from groundup.text.cleaning import normal_form, words
from groundup.text.rows import Choice, Conversation, Document, Message, Preference
from groundup.text.saying_no import is_refusal
from groundup.world.facts import HELDOUT_PAIRS
from groundup.world.pack import is_heldout_combination

# Enough of the world to meet every source of it.
LITTLE_WORLD = {"world_megabytes": 0.3, "world_conversations": 1_500, "world_preferences": 300}


# The folder is written once and read by most tests.
read_documents = functools.cache(records.read_documents)
read_conversations = functools.cache(records.read_conversations)
read_preferences = functools.cache(records.read_preferences)
read_choices = functools.cache(records.read_choices)
read_refusals = functools.cache(records.read_refusals)
documents = functools.cache(documents_of)


@functools.cache
def dev_passages() -> frozenset[str]:
    """The passages of all dev questions of BoolQ, of which several share one."""
    return frozenset(question.passage for question in boolq(Rejected()).dev)


def settings(out: Path, **changes: object) -> DataConfig:
    return DataConfig.model_validate({"out": out, **LITTLE_WORLD, **changes})


def built(config: DataConfig) -> Path:
    """The stage in a separate process, where no types are checked and the world is made fast."""
    words = [sys.executable, "-m", "groundup", "data", "build"]
    for name, value in config.model_dump().items():
        words += [f"--{name.replace('_', '-')}"]
        words += map(str, value if isinstance(value, tuple) else [value])
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return config.out


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return built(settings(tmp_path_factory.mktemp("data") / "data"))


def _facts(data: Path, name: str) -> dict[str, object]:
    found = json.loads((data / name).read_text(encoding="utf-8"))
    assert isinstance(found, dict)
    return found


def test_every_file_is_read_back_whole(data: Path) -> None:
    counts = _facts(data, "data.json")["counts"]
    assert isinstance(counts, dict)
    for name, read in (
        ("documents/train", read_documents),
        ("documents/heldout", read_documents),
        ("conversations/train", read_conversations),
        ("conversations/heldout", read_conversations),
        ("preferences/train", read_preferences),
        ("preferences/heldout", read_preferences),
        ("choices/heldout", read_choices),
        ("refusals/heldout", read_refusals),
    ):
        found = read(data / f"{name}.jsonl")
        assert not found.bad and len(found.rows) == counts[name]["rows"] > 50


def test_each_kind_has_enough_rows(data: Path) -> None:
    found = documents(data)
    size = sum(len(d.text.encode()) for d in found.train if not generated_set(d.source))
    assert 13e6 < size < 20e6
    assert Counter(d.source for d in found.heldout)["sotu"] == 14
    assert {d.source for d in found.heldout} == {"wiki", "boolq", "sotu", "world-stories"}
    talks = Counter(c.source for c in read_conversations(data / "conversations/train.jsonl").rows)
    assert talks["own"] >= 100 and talks["wiki"] > 20_000 and talks["harm-scores"] > 100


def test_no_title_is_on_both_sides(data: Path) -> None:
    def titles(name: str) -> set[str]:
        rows = read_documents(data / f"documents/{name}.jsonl").rows
        titled = [row for row in rows if row.source in ("wiki", "boolq")]
        return {" ".join(words(row.text.split("\n")[0])) for row in titled}

    tested = read_choices(data / "choices/heldout.jsonl").rows
    heldout = titles("heldout") | {one.group for one in tested if one.source == "boolq"}
    train = titles("train")
    assert not train & heldout
    learned = read_conversations(data / "conversations/train.jsonl").rows
    assert not {c.group for c in learned if c.source in ("wiki", "boolq")} & heldout


def test_no_thirteen_words_in_a_row_are_on_both_sides(data: Path) -> None:
    """With tuples of words in sets, slowly: an independent look at what the stage reports.

    Of real texts: in the small world, a grammar makes both sides.
    """

    def grams(text: str) -> set[tuple[str, ...]]:
        said = words(text)
        return {tuple(said[i : i + 13]) for i in range(len(said) - 12)}

    tested: set[tuple[str, ...]] = set()
    for document in read_documents(data / "documents/heldout.jsonl").rows:
        if not generated_set(document.source):
            tested |= grams(document.text)
    for choice in read_choices(data / "choices/heldout.jsonl").rows:
        tested |= grams(choice.prompt)
    for pair in read_preferences(data / "preferences/heldout.jsonl").rows:
        if not generated_set(pair.source):
            tested |= grams(pair.chosen) | grams(pair.rejected)
    # All of them, evaluated or not: some passages repeat a dev passage but for a word.
    for passage in dev_passages():
        tested |= grams(passage)
    for one in read_documents(data / "documents/train.jsonl").rows[::7]:
        assert not grams(one.text) & tested
    for talk in read_conversations(data / "conversations/train.jsonl").rows[::7]:
        assert not any(grams(message.content) & tested for message in talk.messages)
    assert _facts(data, "leaks.json")["left"] == 0


def test_dev_passages_of_boolq_are_not_in_training(data: Path) -> None:
    dev = set(map(normal_form, dev_passages()))
    for document in documents(data).train:
        assert normal_form(document.text.partition("\n\n")[2]) not in dev
    for talk in read_conversations(data / "conversations/train.jsonl").rows:
        if talk.source == "boolq":
            assert normal_form(talk.messages[0].content.partition("\n\n")[0]) not in dev


def test_harmful_responses_are_only_rejected_ones(data: Path) -> None:
    scored = [one for one in scored_responses(Rejected()) if one.kind == "harm"]
    # By the first words, since responses are cut to fit the context.
    harmful = {tuple(words(one.response)[:12]) for one in scored if one.score >= 0.25}
    harmful -= {tuple(words(one.response)[:12]) for one in scored if one.score < 0.25}
    said = {
        tuple(words(message.content)[:12])
        for side in ("train", "heldout")
        for talk in read_conversations(data / f"conversations/{side}.jsonl").rows
        for message in talk.messages
        if message.role == "assistant"
    }
    assert not said & harmful
    for side in ("train", "heldout"):
        pairs = read_preferences(data / f"preferences/{side}.jsonl").rows
        mine = [pair for pair in pairs if pair.source.startswith("harm")]
        assert len(mine) > 100
        assert not {tuple(words(pair.chosen)[:12]) for pair in mine} & harmful
        needless = {pair.rejected for pair in mine if pair.source == "harm-answer"}
        assert needless and all(is_refusal(text) for text in needless)
        rejected = {pair.rejected for pair in mine if pair.source != "harm-answer"}
        assert {tuple(words(text)[:12]) for text in rejected} <= harmful | {
            tuple(words(one.response)[:12]) for one in scored if one.score >= 0.5
        }


def test_prompts_and_questions_are_on_one_side(data: Path) -> None:
    train = read_preferences(data / "preferences/train.jsonl").rows
    heldout = read_preferences(data / "preferences/heldout.jsonl").rows
    # In the small world both sides ask about the same facts, in other words.
    groups = {pair.group for pair in train if not generated_set(pair.source)}
    assert not groups & {pair.group for pair in heldout}
    refused = read_refusals(data / "refusals/heldout.jsonl").rows
    assert not groups & {one.group for one in refused}
    tested = read_choices(data / "choices/heldout.jsonl").rows
    assert not {pair.prompt[0].content for pair in train} & {one.prompt for one in tested}
    halves = Counter(pair.source for pair in train), Counter(one.source for one in tested)
    for name in ("siqa", "commonsenseqa", "openbookqa", "piqa"):
        assert halves[0][name] > 0 and halves[1][name] > 0
    assert {one.kind for one in refused} == {"harmful", "benign"}


def test_conversations_fit_their_context_and_end_with_an_answer(data: Path) -> None:
    for talk in read_conversations(data / "conversations/train.jsonl").rows:
        assert [m.role for m in talk.messages] == ["user", "assistant"] * (len(talk.messages) // 2)
    # Four characters a token is typical of English: 256 tokens with room for markers.
    rows = read_conversations(data / "conversations/train.jsonl").rows
    long = sum(sum(len(m.content) for m in talk.messages) > 900 for talk in rows)
    assert long < 0.01 * len(rows)


@pytest.mark.long
def test_the_split_does_not_depend_on_the_seed_and_the_stage_is_deterministic(
    data: Path, tmp_path: Path
) -> None:
    few = {"world_megabytes": 0.1, "world_conversations": 300, "world_preferences": 60}
    few["packs"] = ("openbookqa", "chatterbot", "world")
    one = built(settings(tmp_path / "one", **few))
    again = built(settings(tmp_path / "again", **few))
    other = built(settings(tmp_path / "other", **few, seed=1))
    for kind, read in (("documents", read_documents), ("conversations", read_conversations)):
        sources = [
            {row.source for row in read(folder / kind / "train.jsonl").rows}
            for folder in (data, one)
        ]
        assert set(filter(generated_set, sources[0])) <= sources[1], "every source of the world"
    for path in one.rglob("*.jsonl"):
        name = path.relative_to(one)
        assert (again / name).read_bytes() == path.read_bytes()
        if "heldout" in name.name:
            assert (other / name).read_bytes() == path.read_bytes()
    for name in ("documents", "conversations", "preferences"):
        path = f"{name}/train.jsonl"
        assert (other / path).read_bytes() != (one / path).read_bytes()
    whole = (data / "choices/heldout.jsonl").read_text(encoding="utf-8")
    assert (one / "choices/heldout.jsonl").read_text(encoding="utf-8") in whole


def test_a_second_start_returns_and_other_settings_are_rejected(data: Path) -> None:
    before = (data / "data.json").stat().st_mtime_ns
    assert build.run(settings(data)) == data
    assert (data / "data.json").stat().st_mtime_ns == before
    with pytest.raises(UserError, match="begun with seed=0"):
        build.run(settings(data, seed=7))
    with pytest.raises(UserError, match="did you mean 'boolq'"):
        build.run(DataConfig(out=data.parent / "new", packs=("boolk",)))


def test_data_json_names_every_license_and_hash(data: Path) -> None:
    packs = _facts(data, "data.json")["packs"]
    assert isinstance(packs, list) and len(packs) == 10
    assert all(one["license"] and one["citation"] for one in packs)
    assert all(one["archive"]["sha256"] for one in packs if not one.get("generated"))
    assert [one["name"] for one in packs if one.get("generated")] == ["world"]


# The small world.


def test_held_out_parts_of_the_world_are_not_in_training(data: Path) -> None:
    train = read_documents(data / "documents/train.jsonl").rows
    tested = read_documents(data / "documents/heldout.jsonl").rows
    mine = [document.text for document in train if generated_set(document.source)]
    told = [document.text for document in tested if generated_set(document.source)]
    assert 0.28e6 < sum(map(len, mine)) < 0.32e6 and 0.14e6 < sum(map(len, told)) < 0.16e6
    assert len(set(mine)) == len(mine) and not set(mine) & set(told)
    # Another look than that of the check: both words of a pair, as they are written.
    for who, thing in list(HELDOUT_PAIRS)[::20]:
        assert not any(who in set(words_of) and thing in words_of for words_of in map(_said, mine))
    assert all(is_heldout_combination(text) for text in told)


def _said(text: str) -> set[str]:
    return set(re.findall("[A-Za-z]+", text))


def test_no_evaluation_prompt_of_the_world_is_in_training(data: Path) -> None:
    def asked(name: str) -> set[str]:
        talks = read_conversations(data / f"conversations/{name}.jsonl").rows
        pairs = read_preferences(data / f"preferences/{name}.jsonl").rows
        prompts = [talk.messages[:-1] for talk in talks if generated_set(talk.source)]
        prompts += [pair.prompt for pair in pairs if generated_set(pair.source)]
        return {normal_form(" ".join(m.content for m in p if m.role == "user")) for p in prompts}

    refused = read_refusals(data / "refusals/heldout.jsonl").rows
    tested = asked("heldout") | {normal_form(r.prompt) for r in refused if generated_set(r.source)}
    assert len(tested) > 1_000 and not asked("train") & tested


def test_the_held_out_side_of_the_world_is_large_enough_and_has_no_repeats(data: Path) -> None:
    talks = [
        talk
        for talk in read_conversations(data / "conversations/heldout.jsonl").rows
        if generated_set(talk.source)
    ]
    of_source = Counter(talk.source for talk in talks)
    assert max(of_source.values()) == 250 and "world-lives" not in of_source
    assert {"world-facts", "world-reading", "world-sums", "world-conduct"} <= set(of_source)
    assert len({talk.messages[:-1] for talk in talks}) == len(talks)
    refused = read_refusals(data / "refusals/heldout.jsonl").rows
    kinds = Counter(one.kind for one in refused if generated_set(one.source))
    assert min(kinds["harmful"], kinds["benign"]) >= 100


def test_data_json_records_the_planted_bias(data: Path, tmp_path: Path) -> None:
    assert _facts(data, "data.json")["world"] == {"seed": 0, "bias": 0.5}
    without = build.run(DataConfig(out=tmp_path / "without", packs=("chatterbot",)))
    assert _facts(without, "data.json")["world"] is None


@pytest.mark.long
def test_a_set_of_conversations_alone(tmp_path: Path) -> None:
    data = built(settings(tmp_path / "data", packs=("chitchat",)))
    counts = _facts(data, "data.json")["counts"]
    assert isinstance(counts, dict)
    rows = {name: of_set["rows"] for name, of_set in counts.items()}
    assert rows["documents/train"] == rows["documents/heldout"] == rows["choices/heldout"] == 0
    # It is not pre-trained on, so its models need not name it.
    assert counts["conversations/train"]["by_source"] == {"chitchat": 8419}
    assert counts["conversations/heldout"]["by_source"] == {"chitchat": 1037}
    aside = _facts(data, "data.json")["set_aside"]
    assert isinstance(aside, dict) and aside["chitchat: 1 speaker"] == 3150
    assert _facts(data, "leaks.json")["left"] == 0
    # Readers of texts report that there are none.
    heldout = read_conversations(data / "conversations" / "heldout.jsonl")
    assert len(heldout.rows) == 1037 and not heldout.bad
    with pytest.raises(UserError, match=r"documents.train\.jsonl' is empty"):
        documents(data)


def test_the_data_stage_loads_no_torch() -> None:
    program = "import sys, groundup.data.build, groundup.data.corpus; print('torch' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "False"


# The leak check on texts made to leak.

LONG = "one two three four five six seven eight nine ten eleven twelve thirteen fourteen"


def _talk(asked: str, answer: str, group: str = "", source: str = "x") -> Conversation:
    return Conversation((Message("user", asked), Message("assistant", answer)), source, group)


def test_each_check_finds_exactly_its_leak() -> None:
    against = leaks.evaluated(
        [
            Document(f"Held Title\n\n{LONG}", "wiki", "t"),
            _talk("Who painted the ceiling of that famous old chapel?", "Someone", "g", "siqa"),
        ]
    )
    question = "who painted the ceiling of that famous old chapel"
    assert leaks.failed(Document("held title\n\nother text", "wiki", "x"), against) == {"title"}
    assert leaks.failed(Document("held title\n\nother text", "sotu", "x"), against) == set()
    assert leaks.failed(Document(f"And {LONG.upper()}, and", "sotu", "x"), against) == {"13-gram"}
    assert leaks.failed(Document(" ".join(LONG.split()[:12]), "sotu", "x"), against) == set()
    assert leaks.failed(Document(f"Guess: {question}!", "sotu", "x"), against) == {"question"}
    assert leaks.failed(_talk(question.title(), "No idea"), against) == {"question"}
    later = _talk(question.title(), "No idea")
    hello = (Message("user", "Hi"), Message("assistant", "Hello!"))
    later = replace(later, messages=(*hello, *later.messages))
    assert leaks.failed(later, against) == {"question"}
    assert leaks.failed(_talk("Other", "Answer", "g"), against) == {"question"}
    assert leaks.failed(_talk("Other", f"He said: {LONG}"), against) == {"13-gram"}
    assert leaks.failed(_talk("Other", "x", "held title", "boolq"), against) == {"title"}


def test_a_held_out_question_in_an_earlier_turn_leaks_only_with_its_answer() -> None:
    asked = (Message("user", "Who is it?"),)
    against = leaks.evaluated(
        [
            _talk("Tell me more.", "The fox lives in the forest.", "g", "siqa"),
            Preference(asked, "It is me.", "It is you.", "siqa", "p"),
            Choice("It rains and", ("all is wet", "all is dry"), 1, "piqa", "c"),
            Conversation.of(("Hi", "Hello!", "Why?", "Because."), "siqa", "m"),
        ]
    )
    last = ("And the bear?", "It sleeps.")

    def failed(*turns: str) -> list[frozenset[str]]:
        said = Conversation.of((*turns, *last), "x", "")
        pair = Preference(said.messages[:-1], last[1], "It flies.", "x", "")
        return [leaks.failed(said, against), leaks.failed(pair, against)]

    leaked: list[frozenset[str]] = [frozenset({"question"})] * 2
    assert failed("tell me more", "The fox lives in the forest") == leaked
    assert failed("Hi", "Hello!", "tell me more", "The fox lives in the forest") == leaked
    assert failed("Who is it", "it is me") == failed("It rains and", "All is dry.") == leaked
    sound: list[frozenset[str]] = [frozenset()] * 2
    assert failed("Tell me more.", "The bear eats honey.") == sound
    assert failed("Who is it?", "It is you.") == failed("It rains and", "All is wet.") == sound
    # Held out after another turn, it may mean something else alone.
    assert failed("Why?", "Because.") == sound


def test_the_world_leaks_by_combination_and_question_not_by_sentences() -> None:
    who, thing = min(pair for pair in HELDOUT_PAIRS if pair[0].istitle())
    against = leaks.evaluated(
        [
            Document(f"{who} has a {thing}. {LONG}", "world-stories", "t"),
            _talk("Where does the fox live?", "In the forest.", "fox", "world-facts"),
            Document("A real text that says " + " ".join(reversed(LONG.split())), "wiki", "w"),
        ]
    )
    apart = Document(f"{who} was glad. {LONG}", "world-stories", "x")
    together = Document(f"{who} was glad.\n\nThe {thing} was there.", "world-stories", "y")
    assert leaks.failed(apart, against) == set()
    assert leaks.failed(together, against) == {"combination"}
    assert leaks.failed(Document(together.text, "sotu", "z"), against) == set()
    told = _talk(f"Tell me about {who}.", f"He has a {thing}.", "g", "world-reading")
    assert leaks.failed(told, against) == {"combination"}
    asked = _talk("where does the fox live", "In the forest.", "fox", "world-facts")
    assert leaks.failed(asked, against) == {"question"}
    other = _talk("Tell me where the fox lives.", "In the forest.", "fox", "world-facts")
    assert leaks.failed(other, against) == set()
    real = Document(" ".join(reversed(LONG.split())), "world-facts", "v")
    assert leaks.failed(real, against) == {"13-gram"}
    # What is made of it and stands beside it is asked the same, and its 13-grams are looked for.
    beside = _talk(f"tell me of {who}", f"He has a {thing}.", "g", "newcomer-known")
    assert leaks.failed(beside, against) == {"combination"}
    said = _talk("hi", "Hello! " + " ".join(reversed(LONG.split())), "g", "newcomer-talk")
    assert leaks.failed(said, against) == {"13-gram"}
    pair = Preference(beside.messages[:1], "I do not know.", f"The {thing}.", "newcomer-real", "g")
    kept_pairs, of_pairs = leaks.remove([pair], against, "preferences")
    assert not kept_pairs and {one.check: one.found for one in of_pairs if one.found} == {
        "combination": 1
    }
    kept, report = leaks.remove([apart, together, real], against, "documents")
    assert kept == [apart]
    assert {(one.source, one.check): (one.found, one.left) for one in report} == {
        ("world-stories", "question"): (0, 0),
        ("world-stories", "13-gram"): (0, 0),
        ("world-stories", "combination"): (1, 0),
        ("world-facts", "question"): (0, 0),
        ("world-facts", "13-gram"): (1, 0),
        ("world-facts", "combination"): (0, 0),
    }


def test_only_the_leaking_paragraphs_are_removed_from_a_long_document() -> None:
    against = leaks.evaluated([Document(LONG, "sotu", "t")])
    half = LONG.split()
    spread = f"Before.\n\nThen {' '.join(half[:7])}\n\n{' '.join(half[7:])} ends.\n\nAfter."
    documents_in = [Document(spread, "sotu", "a"), Document("Sound.", "sotu", "b")]
    kept, report = leaks.remove(documents_in, against, "documents")
    assert [document.text for document in kept] == ["Before.\n\nAfter.", "Sound."]
    (found,) = (one for one in report if one.check == "13-gram")
    assert (found.items, found.found, found.left) == (2, 1, 0)


def test_sigterm_ends_it_as_ctrl_c_does(tmp_path: Path) -> None:
    """While other processes share the work, whose semaphores must be released."""
    program = (
        "import loky, sys\nfrom groundup.app.cli import main\n"
        "loky.cpu_count = lambda: 2\nsys.exit(main())"
    )
    words = [sys.executable, "-c", program, "data", "build", "--out", str(tmp_path / "data")]
    words += ["--packs", "world", "--world-megabytes", "1"]
    with subprocess.Popen(words, stderr=subprocess.PIPE, text=True) as process:
        watched = psutil.Process(process.pid)
        while not any("LokyProcess" in " ".join(one.cmdline()) for one in watched.children()):
            assert process.poll() is None
            time.sleep(0.05)
        process.terminate()
        _, said = process.communicate()
    assert (process.returncode, said) == (128 + signal.SIGTERM, "\nstopped\n")
