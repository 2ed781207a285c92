"""Tokens per second of servers with many concurrent clients, against `transformers serve`.

    python benchmarks/serve.py MODEL [--clients 1 16 64] [--turns 3] [--json FILE]

MODEL is the folder of a chat model, such as `quickstart/dpo`. Both servers have OpenAI's interface
and run in their users' environment, in processes of their own that take turns. Clients request
stories, each the next one as soon as it has received the last. The program counts the tokens that
the server reports and the seconds until the first piece of a streamed answer. Both sample by the
model's own generation_config.json, each in the dtype of its weights.

Needs `pip install 'transformers[serving]' httpx` (`httpx` is in the extra `test`).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

SIDES = ("groundup", "transformers", "transformers --continuous-batching")
# Answers per client, and the most tokens of one.
ANSWERS, NEW = 8, 128
ANIMALS = ("fox", "owl", "cat", "dog", "hare", "mole", "frog", "goat")
THINGS = ("lamp", "key", "kite", "cup", "flute", "drum", "map", "bell")


def main() -> None:
    arguments = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    arguments.add_argument("model", type=Path)
    arguments.add_argument("--clients", nargs="+", type=int, default=[1, 16, 64])
    arguments.add_argument("--sides", nargs="+", default=SIDES, choices=SIDES)
    arguments.add_argument("--turns", type=int, default=3, help="processes of each side")
    arguments.add_argument("--json", type=Path, help="file for all measurements")
    options = arguments.parse_args()
    found: dict[str, dict[int, list[tuple[float, float]]]] = {side: {} for side in options.sides}
    for _ in range(options.turns):
        for side in options.sides:
            with served(side, options.model.resolve()) as (address, name):
                for clients in options.clients:
                    asyncio.run(ask(address, name, 1, 2))  # warms up
                    rate = asyncio.run(ask(address, name, clients, ANSWERS))
                    found[side].setdefault(clients, []).append(rate)
    show(found)
    if options.json:
        options.json.write_text(json.dumps(found, indent=1))


@contextmanager
def served(side: str, model: Path) -> Iterator[tuple[str, str]]:
    """A server of the model: its address, and its name for the model."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    name, *more = side.split()
    command = [sys.executable, "-m", "groundup", "serve", str(model), "--port", port]
    if name == "transformers":
        program = Path(sys.executable).with_name("transformers")
        command = [str(program), "serve", str(model), "--port", port, *more]
    offline, nowhere = {"HF_HUB_OFFLINE": "1"}, subprocess.DEVNULL
    with subprocess.Popen(
        command, env={**os.environ, **offline}, stdout=nowhere, stderr=nowhere
    ) as process:
        try:
            address = f"http://127.0.0.1:{port}"
            wait_for(address, process)
            yield address, model.name if name == "groundup" else str(model)
        finally:
            process.kill()


def wait_for(address: str, process: subprocess.Popen[bytes]) -> None:
    until = time.monotonic() + 120
    while time.monotonic() < until:
        try:
            if httpx.get(f"{address}/health").is_success:
                return
        except httpx.HTTPError:
            time.sleep(0.1)
        if process.poll() is not None:
            break
    raise SystemExit(f"the server {process.args!r} does not answer")


async def ask(address: str, name: str, clients: int, answers: int) -> tuple[float, float]:
    """Tokens per second of all clients together, and the median seconds to a first piece."""
    first: list[float] = []
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(base_url=address, timeout=600, limits=limits) as client:
        begun = time.perf_counter()
        told = await asyncio.gather(
            *(one_after_another(client, name, number, answers, first) for number in range(clients))
        )
        seconds = time.perf_counter() - begun
    return sum(told) / seconds, statistics.median(first)


async def one_after_another(
    client: httpx.AsyncClient, name: str, number: int, answers: int, first: list[float]
) -> int:
    """The number of tokens that a client receives in its answers; the last one is streamed."""
    tokens = 0
    for turn in range(answers):
        animal, thing = ANIMALS[number % 8], THINGS[(number // 8 + turn) % 8]
        asked = {"role": "user", "content": f"Tell me a story about the {animal} and the {thing}."}
        body: dict[str, Any] = {"model": name, "messages": [asked], "max_tokens": NEW}
        if turn < answers - 1:
            found = await client.post("/v1/chat/completions", json={**body, "stream": False})
            tokens += found.raise_for_status().json()["usage"]["completion_tokens"]
            continue
        body |= {"stream": True, "stream_options": {"include_usage": True}}
        begun, began = time.perf_counter(), False
        async with client.stream("POST", "/v1/chat/completions", json=body) as stream:
            async for line in stream.aiter_lines():
                chunk = line.removeprefix("data: ")
                if not chunk.startswith("{"):
                    continue
                piece = json.loads(chunk)
                choice = (piece.get("choices") or [{}])[0]
                if not began and choice.get("delta", {}).get("content"):
                    first.append(time.perf_counter() - begun)
                    began = True
                tokens += (piece.get("usage") or {}).get("completion_tokens", 0)
    return tokens


def show(found: dict[str, dict[int, list[tuple[float, float]]]]) -> None:
    best: dict[int, dict[str, float]] = {}
    for side, by_clients in found.items():
        for clients, turns in by_clients.items():
            rates, first = zip(*turns, strict=True)
            rate, name = statistics.median(rates), side.split()[0]
            best.setdefault(clients, {}).setdefault(name, 0.0)
            best[clients][name] = max(best[clients][name], rate)
            print(
                f"{side:36} {clients:>3} clients {rate:8,.0f} tokens/s "
                f"({min(rates):,.0f} to {max(rates):,.0f}), first piece after "
                f"{1000 * statistics.median(first):,.0f} ms"
            )
    for clients, rates_by_name in best.items():
        if len(rates_by_name) == 2:
            ratio = rates_by_name["groundup"] / rates_by_name["transformers"]
            print(f"best against best, {clients:>3} clients {ratio:.2f}")


if __name__ == "__main__":
    main()
