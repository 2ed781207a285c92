"""The stage `redteam`: the same requests, seeds and number of queries for every model.

    attacks.jsonl     every round: the attacks and their results
    redteam.json      the share of requests broken by number of queries, with intervals
    report.html       the same as a page

A stopped run continues after the last complete round.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from groundup.errors import UserError
from groundup.evals.config import RedTeamConfig
from groundup.evals.models import Named, compute_of, located
from groundup.evals.redteam.attacks import Space
from groundup.evals.redteam.judge import breaks, harmful_requests
from groundup.evals.redteam.report import Attacked, write_report
from groundup.evals.redteam.search import METHODS, HarmfulRequest, Method, Tried, by_request, search
from groundup.evals.redteam.target import ModelTarget
from groundup.formats.load import load
from groundup.generation.guarded import Guard, guarding
from groundup.report.history import History
from groundup.runs.console import say
from groundup.runs.files import read_lines, write_lines
from groundup.runs.folder import Run
from groundup.train.device import prepare, restoring_torch

_ATTACKS = "attacks.jsonl"
_SAY_SECONDS = 10.0


@restoring_torch()
def run(config: RedTeamConfig, guard: Guard | None = None) -> Path:
    """Attack every model and write the report; `guard`, of `config.guard`, is applied to all.

    Raises `UserError` for missing models, and for one that was not trained to answer.
    """
    models = located(config.models)
    parents = {one.name: one.path for one in models}
    parents |= {} if config.guard is None else {"guard": config.guard}
    with Run.open(config.out, "redteam", config, parents) as run:
        if run.finished:
            return run.folder
        begun = time.monotonic()
        compute = compute_of(config)
        if run.resolved(dict) is None:
            run.plan({"compute": compute.to_json()})
        requests = harmful_requests(config.requests)
        log = Log.open(run)
        found = [_attacked(config, run, log, one, requests, guard) for one in models]
        seconds = time.monotonic() - begun
        write_report(run, config, requests, found, seconds)
        run.finish(seconds=seconds)
        return run.folder


@dataclass
class Log:
    """The log of rounds, one per line, in their order."""

    run: Run
    rounds: dict[tuple[int, Method], list[list[Tried]]]
    lines: int

    @classmethod
    def open(cls, run: Run) -> Log:
        """Read an earlier run's log, up to the first damaged line."""
        path = run.folder / _ATTACKS
        log = cls(run, {}, 0)
        if not path.is_file():
            return log
        kept = []
        for place, line in enumerate(read_lines(path)):
            try:
                tried = [Tried.of(one) for one in line["tried"]]
                key = line["model"], line["method"]
            except (KeyError, TypeError):
                break
            if line["step"] != place:
                break
            kept.append(line)
            log._add(*key, tried)
        write_lines(path, kept)
        return log

    def write(self, model: int, method: Method, tried: list[Tried]) -> None:
        lines = [one.to_json() for one in tried]
        self.run.log(_ATTACKS, step=self.lines, model=model, method=method, tried=lines)
        self._add(model, method, tried)

    def _add(self, model: int, method: Method, tried: list[Tried]) -> None:
        self.rounds.setdefault((model, method), []).append(tried)
        self.lines += 1


def _attacked(
    config: RedTeamConfig,
    run: Run,
    log: Log,
    named: Named,
    requests: Sequence[HarmfulRequest],
    guard: Guard | None,
) -> Attacked:
    """Attack one model with both searches."""
    model, tokenizer = load(named.path)
    history = History.of(named.path)
    if tokenizer.chat_template is None or (history is not None and not history.chats):
        raise UserError(
            f"{named.source} was never taught to answer, so it has no conduct to break; give "
            "a model that chats (groundup sft)"
        )
    prepare(model, compute_of(config))
    target = ModelTarget(model.eval(), tokenizer, config.max_new_tokens)
    space = Space.of(tokenizer)
    last_said = time.monotonic()
    for method in METHODS:
        done = log.rounds.get((named.place, method), [])
        with guarding(model, guard):
            for tried in search(
                target,
                requests,
                space,
                breaks,
                method=method,
                budget=config.budget,
                seed=config.seed,
                done=tuple(done),
            ):
                log.write(named.place, method, tried)
                if time.monotonic() - last_said > _SAY_SECONDS:
                    last_said = time.monotonic()
                    say(f"{run.stage}  {named.name}: {method}, {len(tried)} prompts in a round")
    tries = {
        method: by_request(log.rounds.get((named.place, method), []), len(requests))
        for method in METHODS
    }
    return Attacked(named.name, named.source, tries)
