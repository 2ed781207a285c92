"""Verifiers: right and wrong answers, and hostile programs and functions."""

from __future__ import annotations

import gc
import os
import re
import subprocess
import sys
import time
from dataclasses import replace
from datetime import datetime
from decimal import Decimal
from fractions import Fraction
from pathlib import Path

import psutil
import pyarrow as arrow
import pytest
from pyarrow import parquet

from groundup.align.config import BestOfNConfig
from groundup.align.prompts import Prompt
from groundup.align.rewards import verifiers
from groundup.align.rewards.by_name import open_rollout_reward, reward_folders
from groundup.align.rewards.verifiers import (
    OwnReward,
    Reward,
    last_number,
    open_reward,
    unjudged,
)
from groundup.align.rollout import Rollout
from groundup.data.packs.newcomers import Newcomers, Topics
from groundup.data.records import read_prompts
from groundup.errors import UserError
from groundup.runs.folder import Run
from groundup.text.rows import Message
from groundup.train.config import TrainingConfig
from groundup.world import gold, questions
from groundup.world.grammar import SeededRandom
from rollouts import byte_tokenizer


def reward_of(spec: str, completion: str, prompt: str = "?", **row: object) -> float:
    [found] = open_reward(spec)([prompt], [completion], [row])
    return found


# Numbers, forms, lengths.


@pytest.mark.parametrize(
    ("prompt", "completion", "right"),
    [
        ("What is 7 + 5?", "7 + 5 = 12.", True),
        ("What is 7 + 5?", "It is 12", True),
        ("What is 7 + 5?", "12 is 7 + 5.", False),  # the last number is what counts
        ("What is 7 + 5?", "No idea.", False),
        ("What is 8 minus 11?", "The answer is -3.", True),
        ("How much is 30 × 400?", "12,000", True),
        ("First 1 + 1. Then: 2 + 2?", "4", True),
        ("What is 7 + 5?", "12.5", False),
        ("What is (7 + 5)? = ?", "12", True),
        ("What is 1.5 + 2.5?", "4", True),
        ("What is 1.5 + 2.5?", "7", False),
        ("What is 0.1 + 0.2?", "0.3", True),
        ("1,000 + 5", "1,005", True),
        ("1,000 + 5", "5", False),
        ("5 - 1,234,567.5", "-1234562.5", True),
        ("9007199254740992 + 1", "9007199254740993", True),
        ("9007199254740992 + 1", "9007199254740992", False),
        ("9" * 200 + " * " + "9" * 200, str(int("9" * 200) ** 2), True),
        ("What is 7 + 5?", "1" * 5000, False),
        ("On 2024-05-03 they asked: 3 + 4?", "7", True),
        ("2024-2019", "5", True),
        ("2019 - 2024", "-5", True),
    ],
)
def test_sum(prompt: str, completion: str, right: bool) -> None:
    assert reward_of("sum", completion, prompt) == float(right)


@pytest.mark.parametrize(
    "prompt",
    [
        "3 + 4 + 5",
        "2 + 3 * 4",
        "2 + (3 * 4)",
        "(2 + 3) * 4",
        "1/2 + 1",
        "2^3 + 1",
        "5 minus 3 divided by 2",
        "7 + 5 = 10 + ?",
        "On 2024-05-03, what is it?",
        "On 2024-05, what is it?",
        "On 2024-11-12, what is it?",
        "What happened in 2019-2024?",
        "1,2 + 3",
        "1000,000 + 5",
        "3 + 4th",
        "1.2.3 + 4",
    ],
)
def test_rejects_prompts_without_a_sum_of_two_numbers(prompt: str) -> None:
    with pytest.raises(UserError, match="finds no sum"):
        reward_of("sum", "7", prompt)


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("It is .5", "1/2"),
        ("-.5", "-1/2"),
        ("it costs $.50", "1/2"),
        ("-$5", "-5"),
        ("$1,234.50 in all", "2469/2"),
        ("1e5", "100000"),
        ("2.5e-3.", "1/400"),
        ("7-5", "5"),
        ("so x5", "5"),
        ("and then...5", "5"),
        ("5 - 3 = −2.", "-2"),
        ("1e999999999", "999999999"),  # an exponent of nine digits is not a number
    ],
)
def test_the_last_number_is_read_in_common_notations(text: str, number: str) -> None:
    assert last_number(text) == Fraction(number)


SIGNED = re.compile(r"(-?\d+)\s*([-+])\s*(-?\d+)")


def test_every_sum_of_the_small_world_is_read() -> None:
    dice, found = SeededRandom("sums"), set[str]()
    for heldout in (False, True):
        for _ in range(1_500):
            talk = questions.conversation(dice, heldout=heldout)
            found.update(turn.content for turn in talk.messages if turn.role == "user")
    signed = {asked: SIGNED.findall(asked) for asked in found}
    for asked, sums in signed.items():
        if sums:
            a, sign, b = sums[-1]
            right = int(a) + int(b) if sign == "+" else int(a) - int(b)
            assert reward_of("sum", f"{right}.", asked) == 1, asked
            assert reward_of("sum", f"{right + 1}.", asked) == 0, asked
    assert sum(map(bool, signed.values())) > 200


def test_sum_agrees_with_the_small_world() -> None:
    dice, met = SeededRandom("verifiers"), 0
    for _ in range(500):
        talk = questions.conversation(dice)
        if talk.source != "world-sums" or len(talk.messages) != 2:
            continue
        asked, answered = (turn.content for turn in talk.messages)
        parsed = questions.parse([Message("user", asked)])
        if " plus " not in asked and " + " not in asked:
            continue
        met += 1
        assert gold.judge(talk.messages[:1], answered).correct == 1.0 and parsed is not None
        number = last_number(answered)
        if number is not None:
            assert reward_of("sum", answered, asked) == 1.0, (asked, answered)
            assert reward_of("sum", str(int(number) + 1), asked) == 0.0
    assert met > 10


def test_sum_prefers_the_rows_answer_and_needs_an_answer_or_a_sum() -> None:
    assert reward_of("sum", "so 72", "Natalia sold clips …", answer="48+24 = #### 72") == 1
    assert reward_of("sum", "so 71", "What is 70 + 1?", answer=72) == 0
    assert reward_of("sum", "so 71", "What is 70 + 1?", answer="One more than seventy.") == 1
    with pytest.raises(UserError, match="no sum in 'Who are you\\?'"):
        reward_of("sum", "12", "Who are you?")


UNKNOWN = "I do not know that. I can only add and take away numbers up to 20."


@pytest.mark.parametrize(
    ("prompt", "answer", "right"),
    [
        ("Calculate 44 + 215.", UNKNOWN, "259"),
        ("Calculate 44 + 215.", "Ask somebody who is older than 20.", "259"),
        ("Calculate 44 + 215.", "260", "260"),  # no more than a number
        ("Calculate 44 + 215.", " $260.", "260"),
        ("Calculate 44 + 215.", 260, "260"),
        ("Is it 20-30 miles?", "Two days are 40.\n#### 40", "40"),
        ("Two days are how many hours?", "It is 48, I am sure.", "48"),
    ],
)
def test_words_yield_to_the_prompts_sum_but_numbers_do_not(
    prompt: str, answer: object, right: str
) -> None:
    assert reward_of("sum", right, prompt, answer=answer) == 1
    assert reward_of("sum", "20", prompt, answer=answer) == 0


def test_an_answer_that_says_unknown_is_never_right() -> None:
    with pytest.raises(UserError, match="no sum in 'half of 282' and no number"):
        reward_of("sum", "20", "half of 282", answer=UNKNOWN)


def test_sum_rejects_wrong_answers_to_newcomers_questions() -> None:
    newcomers = Newcomers(Topics(("gold",), ("Ada",), ("Rome",), ("It is so.",), ("is",), ("it",)))
    number, judged, left_out = r"(\d+(?:\.\d+)?)", 0, 0
    plain = re.compile(rf"{number} ?(\+|plus|-|minus|\*|times) ?{number}")
    for index in range(4_000):
        talk = newcomers.conversation(0, index)
        if talk.source != "newcomer-sums":
            continue
        asked, row = talk.messages[-2].content, {"answer": talk.messages[-1].content}
        if unjudged("sum", asked, row) is not None:
            left_out += 1
            continue
        judged += 1
        *_, found = plain.finditer(asked)
        a, sign, b = Decimal(found[1]), found[2], Decimal(found[3])
        right = a + b if sign in ("+", "plus") else a * b if sign in ("*", "times") else a - b
        assert reward_of("sum", f"{right}", asked, **row) == 1, (asked, row)
        assert reward_of("sum", f"{right + 1}", asked, **row) == 0
    assert judged > 20 and left_out > 20


@pytest.mark.parametrize(
    ("spec", "row", "judged"),
    [
        ("sum", {"answer": "72"}, True),
        ("sum", {}, False),
        ("unit-test", {"tests": ["assert True"]}, True),
        ("unit-test", {"tests": []}, False),
        ("unit-test", {}, False),
        ("json", {}, True),
        ("length:4", {}, True),
        ("a.b:c", {}, True),
        ("some/folder", {}, True),
    ],
)
def test_prompts_that_cannot_be_judged_are_reported_before_sampling(
    spec: str, row: dict[str, object], judged: bool
) -> None:
    why = unjudged(spec, "Who are you?", row)
    assert (why is None) == judged and (judged or spec in str(why))


def test_format_length_and_json() -> None:
    form = r"format:^<think>.*</think>\s*\S"
    assert reward_of(form, "<think>a\nb</think> yes") == 1 and reward_of(form, "yes") == 0
    assert [reward_of("length:4", "a " * n) for n in (0, 1, 4, 6, 8, 50)] == [0, 0.25, 1, 0.5, 0, 0]
    assert reward_of("json", "[1, 2]") == 1 and reward_of("json", "{'a': 1}") == 0
    assert reward_of("json:a,b", '{"a": 1, "b": null, "c": 2}') == 1
    assert reward_of("json:a,b", '{"a": 1}') == reward_of("json:a", '["a"]') == 0
    assert reward_of("json", "[" * 100_000) == 0


@pytest.mark.parametrize("said", ["NaN", "[1, -Infinity]", '{"a": NaN}', "{'a': 1}"])
def test_python_literals_are_not_json(said: str) -> None:
    assert reward_of("json", said) == 0


def test_a_catastrophic_pattern_is_stopped() -> None:
    with pytest.raises(UserError, match="simplify the pattern"):
        reward_of("format:^(a|aa)+$", "a" * 60 + "!")


# Programs.

TESTS = ["assert add(1, 2) == 3", "assert add(-1, 1) == 0"]
ADD = "def add(a, b):\n    return a + b\n"
WRONG = "def add(a, b):\n    return 7\n"


@pytest.mark.parametrize(
    ("program", "share"),
    [
        (ADD, 1),
        (f"Here it is:\n```python\n{ADD}```\nIt adds.", 1),
        ("def add(a, b):\n    return 3", 0.5),
        ("def add(a, b:", 0),
        ("I cannot program.", 0),
        ("", 0),
        ("import math, re, collections, dataclasses, functools, numpy\n" + ADD, 1),
        ("import asyncio, doctest, multiprocessing.managers, subprocess\n" + ADD, 1),
        ("import threading\nt = threading.Thread(target=print)\nt.start(); t.join()\n" + ADD, 1),
        ("print('x' * 10**7)\n" + ADD, 1),
        # One test that does not end costs no other.
        ("def add(a, b):\n    while b == 2: pass\n    return a + b\n", 0.5),
        ("def add(a, b):\n    while b == 1: pass\n    return a + b\n", 0.5),
        ("def add(a, b):\n    return b if b < 2 else add(a, b - 1) + 1\n", 0),
    ],
)
def test_programs_are_tested(program: str, share: float, monkeypatch: pytest.MonkeyPatch) -> None:
    # Loops are ended by processor time, even on a busy machine.
    limits = replace(verifiers._TEST_LIMITS, wall_seconds=120)
    if "while" in program:
        limits = replace(limits, cpu_seconds=0.5)
    monkeypatch.setattr(verifiers, "_TEST_LIMITS", limits)
    assert reward_of("unit-test", program, tests=TESTS) == share


@pytest.mark.parametrize(
    "said",
    [
        f"```python3\n{ADD}```",
        f"```Python\n{ADD}```",
        f"```py3 title='add.py'\n{ADD}```",
        f"```{{.python}}\n{ADD}```",
        f"```\r\n{ADD}```",
        f"~~~python\n{ADD}~~~",
        f"````python\n{ADD}````",
        f"Here:```python\n{ADD}```",
        f"```python\n{ADD}",
        f"The function ```add``` is\n```python\n{ADD}```",
        f"```python\n{ADD}```\nSo it is used:\n```python\n>>> add(1, 2)\n3\n```",
        f"```python\n{ADD}```\nSo it is used:\n```python\nprint(add(1, 2))\n```",
        f"```python\n{ADD}```\nIt prints\n```text\n3\n```\nas\n```\n{'(' * 10**5}\n```",
        f"```python\n{WRONG}```\nNo, so it is:\n```python\n{ADD}```",
        "```python\nadd = lambda a, b: a + b\n```",
    ],
)
def test_the_program_is_found_in_the_answer(said: str) -> None:
    assert reward_of("unit-test", said, tests=TESTS) == 1


HOSTILE = {
    "loop": "while True: pass",
    "exit": "import os; os._exit(0)",
    "raise": "raise SystemExit(0)",
    "memory": "x = [bytearray(10**8) for _ in range(100)]",
    "deep": "def f(): f()\nf()",
    "fork": "import os\nwhile True: os.fork()",
    "processes": "import subprocess\nsubprocess.run(['touch', 'MARK'])",
    "system": "import os; os.system('touch MARK')",
    "spawn": "from multiprocessing.util import spawnv_passfds\n"
    "spawnv_passfds(b'/bin/sh', [b'sh', b'-c', b'touch MARK'], [])",
    "fresh": "import sys; del sys.modules['subprocess']; import _posixsubprocess",
    "write": "open('MARK', 'w').write('x')",
    "database": "import sqlite3; sqlite3.connect('MARK').execute('create table a(b)')",
    "history": "import readline; readline.write_history_file('MARK')",
    "pipe": "import os; os.mkfifo('MARK')",
    "node": "import posix; posix.mknod('MARK')",
    "shared": "import _posixshmem, os; _posixshmem.shm_open('/x', os.O_RDWR | os.O_CREAT)",
    "remove": "import os; os.remove('KEPT')",
    "move": "import os; os.rename('KEPT', 'MARK')",
    "tree": "import shutil; shutil.rmtree('.')",
    "network": "import socket; socket.create_connection(('127.0.0.1', 9))",
    "library": "import ctypes; ctypes.CDLL(None).system(b'touch MARK')",
    "kill": "import os, signal; os.kill(os.getppid(), signal.SIGKILL)",
    "forge": "import os\nfor n in range(3, 40):\n    try: os.write(n, b'{\"passed\": 2}\\n')\n"
    "    except OSError: pass\nos._exit(0)",
    "nested": "import os\nfor n in range(3, 40):\n    try: os.write(n, b'[' * 10**5 + b'\\n')\n"
    "    except OSError: pass",
    "no text": "import os\nfor n in range(3, 40):\n    try: os.write(n, b'\\xff\\xfe\\n')\n"
    "    except OSError: pass",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_programs_get_no_reward_and_leave_nothing(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "KEPT").write_text("kept")
    if name == "loop":
        limits = replace(verifiers._TEST_LIMITS, cpu_seconds=0.5)
        monkeypatch.setattr(verifiers, "_TEST_LIMITS", limits)
    start = time.monotonic()
    assert reward_of("unit-test", f"{HOSTILE[name]}\n{ADD}", tests=TESTS) == 0
    assert time.monotonic() - start < 60  # on a busy machine too
    assert [path.name for path in tmp_path.iterdir()] == ["KEPT"]
    assert (tmp_path / "KEPT").read_text() == "kept"


def test_an_endless_line_does_not_fill_memory() -> None:
    resource = pytest.importorskip("resource")
    flood = (
        "import os\nfor _ in range(2**9):\n  for n in range(3, 9):\n"
        "    try: os.write(n, b'a' * 2**20)\n    except OSError: pass"
    )
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert reward_of("unit-test", f"{flood}\n{ADD}", tests=TESTS) == 0
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert after < before + 2**18 * (2**10 if sys.platform == "darwin" else 1)


def test_a_rust_library_cannot_write_to_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    save = "import numpy, safetensors.numpy as s\ns.save_file({'a': numpy.zeros(3)}, 'MARK')\n"
    assert reward_of("unit-test", save + ADD, tests=TESTS) == 0
    assert all(path.stat().st_size == 0 for path in tmp_path.iterdir())


# Programs that are wrong and change what could call them right.
CHEATS = {
    "checker": (f"import runpy\nrunpy.run_path = lambda *a, **k: {{}}\n{WRONG}", TESTS),
    "page": (
        "import sys\npage = sys.modules['sandboxed']\n"
        f"page.exec = page.compile = page.run = page.parse = lambda *a: None\n{WRONG}",
        TESTS,
    ),
    "sum": (f"import builtins\nbuiltins.sum = lambda *a: 2\n{WRONG}", TESTS),
    "len": (f"import builtins\nbuiltins.len = lambda a: 3\n{WRONG}", ["assert len('abcd') == 3"]),
    "exec": (f"import builtins\nbuiltins.exec = builtins.compile = print\n{WRONG}", TESTS),
    "answer": (
        "import json\ndef encode(self, one):\n"
        '    return \'{"id": "%s", "answer": {"passed": [1, 2]}}\' % one[\'id\']\n'
        f"json.JSONEncoder.encode = encode\n{WRONG}",
        TESTS,
    ),
    "print": (
        "import builtins\nown = print\ndef print(text, **rest):\n"
        "    own(text.replace('\"passed\": []', '\"passed\": [1, 2]'), **rest)\n"
        f"builtins.print = print\n{WRONG}",
        TESTS,
    ),
    "jump": (
        "import sys\ndef trace(frame, event, argument):\n"
        "    if event == 'line' and frame.f_code.co_name == '<module>' and frame.f_lineno == 2:\n"
        f"        frame.f_lineno = 3\n    return trace\nsys.settrace(trace)\n{WRONG}",
        ["found = add(1, 2)\nassert found == 3\nfound = None"],
    ),
    "monitor": (
        "import sys\ndef line(code, number):\n"
        "    if code.co_filename == 'test' and number == 2:\n"
        "        sys._getframe(1).f_lineno = 3\nwatch = sys.monitoring\n"
        "watch.use_tool_id(1, 'cheat')\nwatch.register_callback(1, watch.events.LINE, line)\n"
        f"watch.set_events(1, watch.events.LINE)\n{WRONG}",
        ["found = add(1, 2)\nassert found == 3\nfound = None"],
    ),
    "reads": (
        "import re, sys\ndef add(a, b):\n"
        "    tests = open(sys._getframe(1).f_code.co_filename).read()\n"
        "    return int(re.search(rf'add.{a}, {b}. == (\\S+)', tests)[1])\n",
        TESTS,
    ),
}


@pytest.mark.parametrize("name", CHEATS)
def test_a_program_cannot_change_its_judge(name: str) -> None:
    if name == "monitor" and not hasattr(sys, "monitoring"):
        pytest.skip("Python has sys.monitoring from 3.12 on")
    program, tests = CHEATS[name]
    assert reward_of("unit-test", program, tests=tests) == 0


def test_a_program_and_its_tests_may_use_all_of_python() -> None:
    program = (
        "from __future__ import annotations\nimport pickle\nfrom dataclasses import dataclass\n"
        "@dataclass\nclass One:\n    value: int\n"
        "def copied(one):\n    return pickle.loads(pickle.dumps(one))\n"
        "def sum(a, b):\n    return a + b\n"
    )
    tests = [
        "assert copied(One(3)) == One(3)",
        "assert sum(1, 2) == 3  # \ud800",
        "def f(x: 'no name' = 1): return x\nassert f() == 1",
        "from dataclasses import dataclass\n@dataclass\nclass Two:\n    value: int\n"
        "assert Two.__dataclass_fields__['value'].type is int",
        "assert sum(1, 2) = 3",
    ]
    assert reward_of("unit-test", program, tests=tests) == 0.8


def test_waiting_programs_are_ended_by_the_time_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    limits = verifiers._TEST_LIMITS
    assert limits.wall_seconds == 10
    monkeypatch.setattr(verifiers, "_TEST_LIMITS", replace(limits, wall_seconds=2))
    start = time.monotonic()
    assert reward_of("unit-test", f"import time; time.sleep(600)\n{ADD}", tests=TESTS) == 0
    assert 2 <= time.monotonic() - start < 60


# Asks for something that waits, and says which process waits.
_ASKING = """
import threading, time
from pathlib import Path
from groundup.runs.sandbox import Limits, Sandbox
asked = Sandbox(Path("{script}"), Limits(wall_seconds=1, isolated=False))
threading.Thread(target=asked.ask, args=({{}},), daemon=True).start()
while not Path("{script}.pid").exists():
    time.sleep(0.01)
print(Path("{script}.pid").read_text(), flush=True)
time.sleep(600)
"""


@pytest.mark.long
def test_waiting_programs_end_after_the_run_was_killed(tmp_path: Path) -> None:
    script = tmp_path / "waits.py"
    script.write_text(
        "import os, time\nfrom pathlib import Path\n"
        "def answer(question):\n"
        "    Path(f'{__file__}.new').write_text(str(os.getpid()))\n"
        "    os.replace(f'{__file__}.new', f'{__file__}.pid')\n"
        "    time.sleep(600)\n"
    )
    words = [sys.executable, "-c", _ASKING.format(script=script)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        waiting = psutil.Process(int(parent.stdout.readline()))
        parent.kill()
    waiting.wait(timeout=240)


def test_a_program_sees_no_secret_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_TOKEN", "secret")
    said = "import os\ndef seen():\n    return 'MY_TOKEN' in os.environ"
    assert reward_of("unit-test", said, tests=["assert not seen()"]) == 1


def test_programs_need_tests() -> None:
    for row in ({}, {"tests": []}, {"tests": [1]}):
        with pytest.raises(UserError, match="needs 'tests'"):
            reward_of("unit-test", ADD, **row)


# A person's own function.

OWN = """
import os, time
import numpy

def words(prompts, completions):
    return [float(len(one.split())) for one in completions]

def answers(prompts, completions, rows):
    return numpy.array([c == r["answer"] for c, r in zip(completions, rows)])

def keywords(prompts, completions, **rest):
    return (len(one) for one in completions)

def by_name(rows, completions, strict=True, *, prompts):
    return [strict and p == "p" and c == "a b" and r == {"answer": "a b"}
            for p, c, r in zip(prompts, completions, rows)]

def swapped(completions, prompts):
    return [c == "a b" and p == "p" for p, c in zip(prompts, completions)]

def alone(completions):
    return [len(one) for one in completions]

def named_otherwise(asked, said, strict=True):
    return [strict is True and a == "p" and s == "a b" for a, s in zip(asked, said)]

def with_rows(asked, said, data):
    return [s == one["answer"] for s, one in zip(said, data)]

def with_the_rest(asked, *rest):
    said, data = rest
    return [s == one["answer"] for s, one in zip(said, data)]

def optional(prompts, completions, answer=None):
    return [answer is None] * len(prompts)

def trls(completions, **kwargs):
    return [c == a == r["answer"] and p == "p" for p, c, a, r in zip(
        kwargs["prompts"], completions, kwargs["answer"], kwargs["rows"])]

def trls_column(prompts, completions, answer=None, **kwargs):
    return [c == a and p == "p" for p, c, a in zip(prompts, completions, answer)]

def asks_for_more(prompts, completions, rows, tokenizer):
    return [1.0] * len(completions)

def asks_by_name(prompts, completions, *, answer):
    return [1.0] * len(completions)

def answers_first(completions, answer):
    return [1.0] * len(completions)

def asks_alone(prompts):
    return [1.0] * len(prompts)

def noisy(prompts, completions):
    print("x" * 10**7)
    os.write(2, b"y" * 10**6)
    return [1] * len(completions)

def raises(prompts, completions):
    raise KeyError("no such thing")

def hangs(prompts, completions):
    time.sleep(600)

def spins(prompts, completions):
    while True: pass

def dies(prompts, completions):
    os._exit(3)

def leaves(prompts, completions):
    raise SystemExit

def texts_of(prompts, completions, rows):
    return [float(row["when"] == "2026-05-01 12:30:00" and row["price"] == "1.50") for row in rows]

def nothing(prompts, completions):
    pass

def nan(prompts, completions):
    return [1.0, float("nan")]

def infinite(prompts, completions):
    return [1.0, float("inf")]

def huge(prompts, completions):
    return [1e9, -1.1e9]

def largest(prompts, completions):
    return [1e9, -1e9]

def by_completion(prompts, completions):
    return {number: 1.0 for number, _ in enumerate(completions)}

def without_order(prompts, completions):
    return {float(len(one)) for one in completions}

def digits(prompts, completions):
    return "1" * len(completions)

def raw(prompts, completions):
    return b"\x01" * len(completions)

class DataFrame(list):
    columns = ["score", "length"]

def table(prompts, completions):
    return DataFrame([0, 1])

def few(prompts, completions):
    return [1.0]

def texts(prompts, completions):
    return [1.0, "good"]

def inner(prompts, completions):
    return [[1.0], [2.0]]

count = 5
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "mine.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def asked(spec: str, reward: Reward | None = None) -> list[float]:
    reward = reward or open_reward(spec)
    rows: list[dict[str, object]] = [{"answer": "a b"}, {"answer": "d"}]
    return reward(["p", "q"], ["a b", "c — 本"], rows)


def test_a_users_function(own: Path) -> None:
    assert asked("mine:words") == [2, 3] and asked("mine:answers") == [1, 0]
    assert asked("mine:keywords") == [3, 5] and asked("mine:noisy") == [1, 1]
    assert asked("mine:largest") == [1e9, -1e9]


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("by_name", [1, 0]),
        ("swapped", [1, 0]),
        ("alone", [3, 5]),
        ("named_otherwise", [1, 0]),
        ("with_rows", [1, 0]),
        ("with_the_rest", [1, 0]),
        ("optional", [1, 1]),
        ("trls", [1, 0]),
        ("trls_column", [1, 0]),
    ],
)
def test_a_function_gets_the_arguments_it_declares(own: Path, name: str, values: list[int]) -> None:
    assert asked(f"mine:{name}") == values


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("asks_for_more", "'tokenizer'"),
        ("asks_by_name", "'answer'"),
        ("answers_first", "'answer'"),
        ("asks_alone", "no completions"),
        ("wrods", "did you mean 'words'"),
        ("absent", "has no function 'absent'"),
        ("count", "has no function 'count'"),
    ],
)
def test_an_uncallable_object_is_rejected_on_opening(own: Path, name: str, told: str) -> None:
    with pytest.raises(UserError) as refused:
        open_reward(f"mine:{name}")
    said = str(refused.value)
    assert told in said and f"mine:{name}" in said and "\n" not in said


def test_columns_without_a_json_type_are_text(own: Path) -> None:
    table = arrow.table(
        {
            "prompt": ["p"],
            "when": [datetime(2026, 5, 1, 12, 30)],
            "price": [Decimal("1.50")],
            "bytes": [b"\xff"],
        }
    )
    parquet.write_table(table, own / "prompts.parquet")
    [row] = read_prompts(own / "prompts.parquet").rows
    assert open_reward("mine:texts_of")([row.text], ["c"], [row.settings]) == [1]


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("raises", "KeyError: 'no such thing'"),
        ("dies", "ended its process"),
        ("leaves", "SystemExit"),
        ("nothing", "NoneType"),
        ("nan", "gave nan for the completion 'c — 本'"),
        ("infinite", "gave inf"),
        ("huge", "gave -1100000000.0 for the completion 'c — 本'; return a number from -1,000,000"),
        (
            "by_completion",
            "returned a value of type dict; return a list, one number for each completion",
        ),
        ("without_order", "returned a value of type set; return a list"),
        ("digits", "returned a value of type str; return a list"),
        ("raw", "returned a value of type bytes; return a list"),
        ("table", "returned a value of type DataFrame; return a list"),
        ("few", "gave 1 value for 2 completions"),
        ("texts", "gave 'good', which is not a number"),
        ("inner", "is not a number"),
    ],
)
def test_errors_of_a_function_are_one_sentence(own: Path, name: str, told: str) -> None:
    with pytest.raises(UserError) as refused:
        asked(f"mine:{name}")
    said = str(refused.value)
    assert told in said and f"mine:{name}" in said and "\n" not in said


@pytest.mark.parametrize("name", ["hangs", "spins"])
def test_a_function_that_does_not_end_is_stopped(own: Path, name: str) -> None:
    with pytest.raises(UserError, match=f"mine:{name}.* took more than 2 s"):
        asked(f"mine:{name}", OwnReward(f"mine:{name}", seconds=2))


@pytest.mark.parametrize(
    ("module", "told"),
    [("yours", "ModuleNotFoundError"), ("torn", "SyntaxError"), ("leaving", "SystemExit")],
)
def test_a_module_that_cannot_be_imported_is_rejected_on_opening(
    own: Path, module: str, told: str
) -> None:
    (own / "torn.py").write_text("def words(prompts")
    (own / "leaving.py").write_text("raise SystemExit")
    with pytest.raises(UserError, match=rf"no module {module} .*\({told}"):
        open_reward(f"{module}:words")


def test_a_function_leaves_no_process_behind(own: Path) -> None:
    before = set(psutil.Process().children())
    reward = open_reward("mine:words")
    [process] = set(psutil.Process().children()) - before
    assert reward(["p"], ["a b"], [{}]) == [2] and process.is_running()
    del reward
    gc.collect()
    assert not process.is_running()


SCRIPT = """
from groundup.align.best_of_n import run
from groundup.align.config import BestOfNConfig

def words(prompts, completions):
    return [len(one.split()) for one in completions]

with open("started", "a") as file:
    file.write("x")
run(BestOfNConfig(model="model", prompts="prompts.txt", reward="script:words", out="out"))
"""


def test_a_script_does_not_start_itself_for_its_reward(own: Path) -> None:
    (own / "script.py").write_text(SCRIPT)
    with pytest.raises(UserError, match=r"script is imported for its reward .*__main__"):
        open_reward("script:words")
    assert (own / "started").read_text() == "x"
    assert "GROUNDUP_IMPORTS_REWARD" not in os.environ


def test_a_reward_defined_in_main_is_rejected() -> None:
    with pytest.raises(UserError, match="__main__:words is in the running program"):
        open_reward("__main__:words")
    settings = {"model": "model", "prompts": "prompts.txt", "out": "out"}
    for name in ("reward", "gold"):
        with pytest.raises(ValueError, match="put the function into a file"):
            BestOfNConfig.model_validate(settings | {"reward": "sum", name: asked})


# By name.


def test_a_folder_is_a_reward_model_and_not_a_verifier(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="reward models are not read here"):
        open_reward(str(tmp_path))


@pytest.mark.parametrize(
    "spec",
    ["", "summ", "length:", "length:0", "length:x", "length:" + "1" * 5000, "format:(", "a b:c"],
)
def test_invalid_names_are_rejected(spec: str) -> None:
    with pytest.raises(UserError):
        open_reward(spec)


@pytest.mark.parametrize("name", ["sum", "json", "length:4"])
def test_a_folder_does_not_shadow_a_verifier(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / name).mkdir()
    (tmp_path / "runs").mkdir()
    assert open_reward(name).name == name
    asked = Prompt((1,), (Message("user", "What is 7 + 5?"),))
    answer = Rollout(asked, (2,), (0.0,), "12", True)
    found = open_rollout_reward(name, byte_tokenizer())([answer])
    assert found == [reward_of(name, "12", "What is 7 + 5?")]
    assert reward_folders(name, "runs", judge=name, cost=name) == {"gold": Path("runs")}


def test_verifiers_load_without_torch() -> None:
    code = "import sys, groundup.align.rewards.verifiers; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, env=os.environ)


def test_sentiment_scores_the_answer_from_minus_one_to_one() -> None:
    assert reward_of("sentiment", "What a lovely day!", "I hate this terrible war.") > 0.5
    assert reward_of("sentiment", "A cruel and horrible war.", "Lovely!") < -0.8
    assert reward_of("sentiment", "The train leaves at nine.") == 0


def test_the_file_of_a_users_reward_is_found_without_running_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("judging").mkdir()
    for name in ("mine.py", "judging/__init__.py", "judging/kind.py"):
        Path(name).write_text("raise SystemExit('imported')\n")
    own = {"reward": Path("mine.py"), "gold": Path("judging/kind.py")}
    found = reward_folders("mine:f", "judging.kind:f", judge="judging:f", cost="not_there:f")
    package = Path("judging/__init__.py")
    assert found == own | {"judge": package, "gold module judging": package}
    # An update of the package is told of elsewhere; a check and a part of Python have no such file.
    assert reward_folders("groundup.world.gold:reward", "length:4", judge="sys:f") == {}


def test_local_imports_of_a_users_reward_are_part_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    files = {
        "mine.py": "import json, words\n\ndef f(prompts, completions):\n    import late",
        "words.py": "from rules import marks\nimport numpy, nowhere, mine",
        "rules/__init__.py": "raise SystemExit('imported')",
        "rules/marks.py": "from . import more",
        "rules/more.py": "",
        "rules/unused.py": "",
        "late.py": "import broken",
        "broken.py": "def",
        "unused.py": "",
        "json.py": "",  # it takes the place of Python's own
    }
    Path("rules").mkdir()
    for name, text in files.items():
        Path(name).write_text(f"{text}\n")
    found = reward_folders("mine:f", None, cost="broken:f")
    used = ("json", "late", "rules", "rules.marks", "rules.more", "words")
    assert found == {"reward": Path("mine.py"), "cost": Path("broken.py")} | {
        f"reward module {one}": Path(
            "rules/__init__.py" if one == "rules" else f"{one.replace('.', '/')}.py"
        )
        for one in used
    }


@pytest.mark.parametrize(
    ("edited", "told"),
    [
        ("mine.py", r"begun from another reward than mine\.py is now"),
        ("words.py", r"another reward module words than words\.py is now"),
    ],
)
def test_an_edited_reward_is_a_different_one(
    edited: str, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    function = "def f(prompts, completions):\n    return [{}] * len(prompts)\n"
    Path("mine.py").write_text("from words import f\n")
    Path("words.py").write_text(function.format(0.0))
    config = TrainingConfig(out=tmp_path / "out")

    def opened() -> Run:
        return Run.open(config.out, "ppo", config, reward_folders("mine:f", None))

    with opened() as run:
        run.finish()
    opened().close()
    Path(edited).write_text(function.format(1.0))
    with pytest.raises(UserError, match=told):
        opened()
