"""How fast the small world is generated, on one core.

    python benchmarks/world.py [--seconds 5]

Prints megabytes of text per second for documents, conversations and pairs, generated in turns so
that changes in the machine's speed affect all. It also prints the speed of SHA-256 on the same
text, a measure of the core that makes different machines comparable. Needs only groundup.
"""

from __future__ import annotations

import argparse
import hashlib
import statistics
import time
from collections.abc import Callable

from groundup.world import pack

# Generated in one turn; large enough that the clock's resolution does not matter.
_ITEMS = 300


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--seconds", type=float, default=5.0, help="how long to draw of each")
    options = arguments.parse_args()
    makers: dict[str, Callable[[int], str]] = {
        "documents": lambda i: pack.document(0, i).text,
        "conversations": lambda i: "".join(m.content for m in pack.conversation(0, i).messages),
        "pairs": lambda i: _pair(i),
    }
    rates: dict[str, list[float]] = {name: [] for name in (*makers, "SHA-256")}
    for make in makers.values():
        make(0)  # the first call reads tables and compiles forms
    begun, turn = time.monotonic(), 0
    while time.monotonic() - begun < options.seconds * len(makers):
        text = ""
        for name, make in makers.items():
            items = range(turn * _ITEMS, (turn + 1) * _ITEMS)
            text, rate = _timed(lambda make=make, items=items: "".join(map(make, items)))
            rates[name].append(rate)
        rates["SHA-256"].append(_timed(lambda text=text: _hashed(text))[1])
        turn += 1
    for name, found in rates.items():
        print(f"{name:<14} {statistics.median(found):8.2f} MB/s")


def _pair(index: int) -> str:
    pair = pack.preference(0, index)
    return "".join([*(message.content for message in pair.prompt), pair.chosen, pair.rejected])


def _hashed(text: str) -> str:
    hashlib.sha256(text.encode()).hexdigest()
    return text


def _timed(work: Callable[[], str]) -> tuple[str, float]:
    """The result of the work, and its megabytes per second of this process."""
    begun = time.process_time()
    text = work()
    return text, len(text.encode()) / 1e6 / (time.process_time() - begun)


if __name__ == "__main__":
    main()
