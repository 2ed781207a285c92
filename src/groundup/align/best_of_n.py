"""Best of n: sample n answers and keep the highest-scoring one, the baseline of all alignment.

    E[gold of the best of n] = sum_i  C(i - 1, n - 1) / C(N, n)  gold_(i)       i = n … N

where gold_(i) belongs to the answer with the i-th lowest score of a pool of N. It is the mean over
all subsets of n answers, unbiased and from one pool for every n (Nakano et al. 2021, WebGPT,
appendix I). The policy it stands for is at most log n - (n - 1) / n nats from the model (Stiennon
et al. 2020, appendix G.3).

The pool also makes data. The best answers are for rejection-sampling fine-tuning, with as many
random ones as its control; pairs that differ in score are preferences. If none of n answers is
right, no pair can teach the right one. With `reference_answers`, the answer that came with such a
prompt joins them, as the better one of pairs with the model's own (Chen et al. 2024, SPIN, learns
from such pairs only).

An answer that is often wrong is unlearned even where it is right: "I am sorry that you are sad" is
the worse answer of many pairs at harmful requests. To a sad user it is the best of four, so no pair
of that prompt defends it. With `across_prompts`, a pair (x, c+, c-) whose worse answer is the best
to another prompt x' adds the pair (x', c-, c+) there, if c+ scores less at x', until c- is chosen
as often as rejected. Then only the prompt tells which of the two is right (Yin et al. 2024,
Relative Preference Optimization, also contrasts answers of different prompts).

    answers.jsonl       every prompt with its answers and their scores
    conversations/      the best answer to each prompt        random/conversations/    any of them
    preferences/        pairs of answers to one prompt, the better one chosen
    result.json         what the best of n is worth           report.html              the same
"""

from __future__ import annotations

import functools
import itertools
import json
import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatch
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from groundup.align.config import BestOfNConfig
from groundup.align.prompts import Prompt, has_sides, load_prompts, mixed, without_prompt
from groundup.align.reward import answered_ids
from groundup.align.rewards.by_name import open_rollout_reward, reward_folders
from groundup.align.rollout import (
    Rollout,
    RolloutReward,
    load_policy,
    rewards_of,
    sample,
    with_missing_eos_penalty,
)
from groundup.data.files import write_json_lines
from groundup.data.split import on_disk
from groundup.errors import UserError
from groundup.formats.card import sources
from groundup.lm.model import CausalLM
from groundup.report.estimate import Estimate, ratio
from groundup.report.figure import Plot
from groundup.report.outcome import RESULT
from groundup.report.page import PAGE, Page, Plots, Section, write_page
from groundup.report.plots import looks, panels
from groundup.report.table import Cell, Table, number, text_table
from groundup.report.terminal import in_terminal
from groundup.runs.console import console, counted, say
from groundup.runs.files import read_json_object, read_lines, write_json, write_lines
from groundup.runs.folder import Run
from groundup.text.cleaning import split_hash
from groundup.text.rows import as_dicts
from groundup.text.tokenizer import Tokenizer
from groundup.train.device import restoring_torch, usable_cores
from groundup.train.loop import step_seed

_ANSWERS = "answers.jsonl"
# At least this many prompts are answered together, and a kill costs no more. With few answers per
# prompt there are more, so that the engine's batch stays full while the longest are finished.
_CHUNK, _ANSWERS_TOGETHER = 16, 128
# The maximum number of answers to a prompt from which pairs are made.
_PAIRED = 4
# The maximum number of other prompts at which reversing a pair is tried.
_DRAWS = 8
_TELL_SECONDS = 10.0


# The estimator.


def best_of_n(
    scores: Float[np.ndarray, " pool"], gold: Float[np.ndarray, " pool"], n: int
) -> float:
    """The expected gold of the highest-scoring answer among n of the pool.

    Answers of equal score are equally likely. `n` is at most the size of the pool.
    """
    size = len(scores)
    if not 1 <= n <= size:
        raise ValueError(f"n={n} is not from 1 to the {size} answers of the pool")
    order = np.argsort(scores, kind="stable")
    sorted_scores, sorted_gold = scores[order], gold[order].astype(float)
    _, group, counts = np.unique(sorted_scores, return_inverse=True, return_counts=True)
    means = np.bincount(group, sorted_gold) / counts
    return float(np.dot(_weights(size, n), means[group]))


@functools.lru_cache(maxsize=64)
def _weights(size: int, n: int) -> Float[np.ndarray, " pool"]:
    """The probability of each rank, lowest first, to be the best of n."""
    log_all = _log_choose(size, n)
    return np.array(
        [
            math.exp(_log_choose(place - 1, n - 1) - log_all) if place >= n else 0.0
            for place in range(1, size + 1)
        ]
    )


def _log_choose(n: int, k: int) -> float:
    return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)


def kl_bound(n: int) -> float:
    """The most nats between best of n and the model (equal if no two answers are the same)."""
    return math.log(n) - (n - 1) / n


# The pool.


@dataclass(frozen=True)
class Pool:
    """The answers to one prompt with their scores and, if it is measured, their gold."""

    prompt: list[dict[str, str]]
    source: str
    texts: list[str]
    scores: Float[np.ndarray, " n"]
    gold: Float[np.ndarray, " n"] | None
    ended: list[bool]
    group: str = ""
    """Shared with variants of the same prompt."""
    reference: dict[str, Any] | None = None
    """The `text` that came with the prompt and its `score`, if no answer scores as high."""

    @classmethod
    def of(cls, line: dict[str, Any]) -> Pool:
        """The pool in a line of answers.jsonl."""
        gold = line.get("gold")
        return cls(
            line["prompt"],
            line["source"],
            line["texts"],
            np.array(line["scores"], float),
            None if gold is None else np.array(gold, float),
            line["ended"],
            line.get("group", ""),
            line.get("reference"),
        )

    @property
    def with_reference(self) -> Pool:
        """The pool that data is made from, with the reference first, if there is one."""
        if self.reference is None:
            return self
        return replace(
            self,
            texts=[self.reference["text"], *self.texts],
            scores=np.array([self.reference["score"], *self.scores]),
            gold=None,
            ended=[True, *self.ended],
            reference=None,
        )

    @property
    def usable(self) -> list[int]:
        """The answers that end and are not blank, the best first; others are no data."""
        spoken = [i for i, text in enumerate(self.texts) if text.strip() and self.ended[i]]
        return sorted(spoken, key=lambda i: -self.scores[i])

    @property
    def best(self) -> float:
        """The score of the best answer that ends and is not blank; there must be one."""
        return float(self.scores[self.usable[0]])


@restoring_torch()
def run(config: BestOfNConfig) -> Path:
    """Sample, score and write; return the folder. A stopped run continues where it was.

    Raises `UserError` for settings, prompts, a reward or a folder that cannot be used.
    """
    parents = {"model": config.model, "prompts": on_disk(config.prompts)}
    parents |= reward_folders(config.reward, config.gold)
    parents |= {} if config.exclude is None else {"exclude": config.exclude}
    with Run.open(config.out, "best-of-n", config, parents) as run:
        if run.finished:
            return run.folder
        begun = perf_counter()
        torch.set_num_threads(config.threads or usable_cores())
        model, tokenizer = load_policy(config.model, config.device)
        longest = model.config.max_position_embeddings - config.max_new_tokens
        train, heldout = load_prompts(
            config.prompts,
            tokenizer,
            longest=longest,
            sources=config.sources,
            mixture=config.mixture,
            rewards=(config.reward, config.gold),
            columns=config.column_names,
        )
        if heldout != train and not has_sides(config.prompts):
            say(
                f"{counted(len(heldout), 'prompt')} of {config.prompts} set aside: every stage "
                "holds the same ones out, so that what is learned can be measured on them"
            )
        for name in config.across_prompts_except:
            if not any(fnmatch(one.source, name) for one in train):
                raise without_prompt("across_prompts_except", name, train)
        asked = mixed(_not_excluded(train, config.exclude), config.questions, config.mixture)
        if config.reference_answers and not any(_reference(one) for one in asked):
            raise UserError(
                f"no prompt of {config.prompts} comes with an answer, which reference_answers "
                "needs; leave it out, or give conversations or pairs"
            )
        reward = open_rollout_reward(config.reward, tokenizer)
        pools = _answered(config, run, model, tokenizer, asked, reward)
        across = (
            functools.partial(_across_prompts, config, tokenizer, reward)
            if config.across_prompts
            else None
        )
        conversations, pairs = _write_data(config, run, asked, pools, across)
        empty = _why_empty(config, pools, conversations, pairs)
        for why in dict.fromkeys(empty.values()):
            say(why)
        _write_report(config, run, pools)
        # Stages that read an empty folder repeat the reason.
        run.finish(questions=len(pools), seconds=perf_counter() - begun, empty=empty)
        return run.folder


def _not_excluded(prompts: Sequence[Prompt], exclude: Path | None) -> list[Prompt]:
    """The prompts that another folder of this stage has not answered."""
    if exclude is None:
        return list(prompts)
    answers = exclude / _ANSWERS
    if not answers.is_file():
        raise UserError(
            f"exclude={exclude} holds no {_ANSWERS}; give a folder that groundup best-of-n wrote"
        )
    known = {json.dumps(line.get("prompt")) for line in read_lines(answers)}
    others = [one for one in prompts if json.dumps(as_dicts(one.messages)) not in known]
    if not others:
        raise UserError(f"exclude={exclude} has every prompt; give more prompts, or leave it out")
    return others


def _answered(
    config: BestOfNConfig,
    run: Run,
    model: CausalLM,
    tokenizer: Tokenizer,
    asked: Sequence[Prompt],
    reward: RolloutReward,
) -> list[Pool]:
    """The pool of every prompt; those that an earlier start has written are read."""
    gold = None if config.gold is None else open_rollout_reward(config.gold, tokenizer)
    chunk = max(_CHUNK, _ANSWERS_TOGETHER // config.n)
    done = [Pool.of(line) for line in _kept(run.folder / _ANSWERS, chunk, len(asked))]
    told = perf_counter()
    for start in range(len(done), len(asked), chunk):
        some = asked[start : start + chunk]
        for line in _chunk(config, model, tokenizer, some, start, reward, gold):
            run.log(_ANSWERS, step=len(done), **line)
            done.append(Pool.of(line))
        if perf_counter() - told > _TELL_SECONDS:
            told = perf_counter()
            say(f"{run.stage}  {len(done)} of {len(asked)} prompts answered {config.n} times")
    return done


def _kept(path: Path, chunk: int, asked: int) -> list[dict[str, Any]]:
    """The complete chunks that an earlier start has written; the rest of the file is cut off."""
    if not path.is_file():
        return []
    found = [line for place, line in enumerate(read_lines(path)) if line["step"] == place]
    kept = found if len(found) == asked else found[: len(found) // chunk * chunk]
    write_lines(path, kept)
    return kept


def _chunk(
    config: BestOfNConfig,
    model: CausalLM,
    tokenizer: Tokenizer,
    some: Sequence[Prompt],
    start: int,
    reward: RolloutReward,
    gold: RolloutReward | None,
) -> list[dict[str, Any]]:
    """The lines of answers.jsonl for some prompts."""
    copies = [prompt for prompt in some for _ in range(config.n)]
    seed = step_seed(config.seed, start)
    rollouts = sample(model, copies, tokenizer, max_new_tokens=config.max_new_tokens, seed=seed)
    ended = np.array([one.ended for one in rollouts])
    found = rewards_of(reward, rollouts)
    scores = with_missing_eos_penalty(found, ended, config.missing_eos_penalty)
    references = _better_references(config, tokenizer, some, scores, reward)
    judged = None
    if gold is not None:
        judged = found if config.gold == config.reward else rewards_of(gold, rollouts)
    lines = []
    for i, prompt in enumerate(some):
        part = slice(i * config.n, (i + 1) * config.n)
        line: dict[str, Any] = {
            "prompt": as_dicts(prompt.messages),
            "source": prompt.source,
            "group": prompt.group,
            "texts": [one.text for one in rollouts[part]],
            "scores": scores[part].tolist(),
            "ended": ended[part].tolist(),
        }
        line |= {} if judged is None else {"gold": judged[part].tolist()}
        line |= {} if (known := references.get(i)) is None else {"reference": known}
        lines.append(line)
    return lines


def _better_references(
    config: BestOfNConfig,
    tokenizer: Tokenizer,
    some: Sequence[Prompt],
    scores: Float[np.ndarray, " answers"],
    reward: RolloutReward,
) -> dict[int, dict[str, Any]]:
    """The references that score higher than all n answers, by the index of their prompt."""
    if not config.reference_answers:
        return {}
    of_all = [_reference_rollout(tokenizer, one, config.max_new_tokens) for one in some]
    found = [(i, one) for i, one in enumerate(of_all) if one is not None]
    if not found:
        return {}
    best = scores.reshape(len(some), config.n).max(1)
    return {
        i: {"text": one.text, "score": float(score)}
        for (i, one), score in zip(
            found, rewards_of(reward, [one for _, one in found]), strict=True
        )
        if score > best[i]
    }


def _reference_rollout(tokenizer: Tokenizer, prompt: Prompt, most: int) -> Rollout | None:
    """The reference as if it had been sampled; None if no policy could have sampled it."""
    answer = _reference(prompt)
    return _as_sampled(tokenizer, prompt, answer, most) if answer else None


def _as_sampled(tokenizer: Tokenizer, prompt: Prompt, answer: str, most: int) -> Rollout | None:
    whole, asked = answered_ids(tokenizer, prompt.messages, answer), len(prompt.ids)
    if tuple(whole[:asked]) != prompt.ids or len(whole) - asked > most:
        return None
    ids = tuple(whole[asked:])
    return Rollout(prompt, ids, (0.0,) * len(ids), answer, ended=True)


def _reference(prompt: Prompt) -> str:
    """The answer that came with a prompt; empty if there is none, or it is blank."""
    answer = prompt.row.get("answer", "")
    return answer if isinstance(answer, str) and answer.strip() and prompt.messages else ""


# The data.


def _write_data(
    config: BestOfNConfig,
    run: Run,
    asked: Sequence[Prompt],
    pools: Sequence[Pool],
    across: Callable[[Sequence[tuple[Prompt, Pool]]], list[dict[str, Any]]] | None,
) -> tuple[int, int]:
    """Write the folders of a data stage: the best answers, random ones, and pairs.

    `across` makes a side's pairs across prompts. Returns the numbers of conversations and pairs.
    """
    prompts = {id(pool): prompt for prompt, pool in zip(asked, pools, strict=True)}
    pools = [pool for pool in pools if pool.usable or pool.reference]
    conversations = pairs = 0
    rng = np.random.default_rng((config.seed, 2))
    counts: dict[str, dict[str, dict[str, int]]] = {}
    sides: list[list[Pool]] = [[], []]
    heldout = _heldout_groups(pools, config.heldout)
    for pool in pools:
        sides[_group(pool) in heldout].append(pool)
    for side, some in zip(("train", "heldout"), sides, strict=True):
        best = [one.with_reference for one in some]
        learned = [i for i, one in enumerate(best) if _is_learned(one, config.min_reward)]
        folders = {
            run.folder / "conversations": [
                _conversation(best[i], best[i].usable[0]) for i in learned
            ],
            run.folder / "random" / "conversations": [
                _conversation(some[i], int(rng.choice(some[i].usable)))
                for i in learned
                if some[i].usable
            ],
            run.folder / "preferences": [pair for pool in best for pair in _pairs(pool)],
        }
        if across is not None:
            by_prompt = [(prompts[id(one)], whole) for one, whole in zip(some, best, strict=True)]
            folders[run.folder / "preferences"] += across(by_prompt)
        for folder, rows in folders.items():
            folder.mkdir(parents=True, exist_ok=True)
            write_json_lines(folder / f"{side}.jsonl", rows)
            if folder.parent == run.folder:
                found = Counter(row["source"] for row in rows)
                counts[f"{folder.name}/{side}"] = {"by_source": dict(found)}
        conversations += len(learned)
        pairs += len(folders[run.folder / "preferences"])
    packs = [vars(one) for one in sources(config.prompts)]
    # A user's own rows belong to no set, whatever their sources are called.
    run.write("data.json", {"packs": packs, **({"counts": counts} if packs else {})})
    write_json(run.folder / "random" / "data.json", {"packs": packs})
    return conversations, pairs


def _why_empty(
    config: BestOfNConfig, pools: Sequence[Pool], conversations: int, pairs: int
) -> dict[str, str]:
    """Why there are no conversations or no preferences, by the name of the folder."""
    found: dict[str, str] = {}
    if not any(pool.with_reference.usable for pool in pools):
        why = (
            f"no answer ends within max_new_tokens={config.max_new_tokens} and says something, "
            "so there is nothing to learn from; give more"
        )
        return dict.fromkeys(("conversations", "preferences"), why)
    if not conversations:
        found["conversations"] = (
            f"min_reward={config.min_reward} is more than any answer scores, so there are no "
            "conversations to learn from; give less"
        )
    if not pairs:
        found["preferences"] = (
            "no prompt has two answers that end and differ in score, so there are no "
            "preferences to learn from; train the model longer, or give more questions"
        )
    return found


def _heldout_groups(pools: Sequence[Pool], share: float) -> set[str]:
    """About this share of the groups, by a hash of its own that does not depend on other prompts.

    The data are already split by the plain hash, so the remaining prompts have no low values of it.
    With few groups, chance may hold none out: then those that a larger share would hold out first
    are taken, one of every source that should have one, and one of all together.
    """
    groups: dict[str, set[str]] = {}
    for pool in pools:
        groups.setdefault(pool.source, set()).add(_group(pool))
    every = set().union(*groups.values())
    found = {group for group in every if _place(group) < share}
    for own in groups.values():
        if share * len(own) >= 1 and not own & found:
            found.add(min(own, key=_place))
    if share and not found and len(every) > 1:
        found.add(min(every, key=_place))
    return found


def _place(group: str) -> float:
    return split_hash(f"best-of-n {group}")


def _is_learned(pool: Pool, min_reward: float | None) -> bool:
    """Whether the best answer is good enough to learn from."""
    return min_reward is None or pool.best >= min_reward


def _conversation(pool: Pool, place: int) -> dict[str, Any]:
    said = {"role": "assistant", "content": pool.texts[place]}
    return {"messages": [*pool.prompt, said], "source": pool.source, "group": _group(pool)}


def _pairs(pool: Pool) -> list[dict[str, Any]]:
    """All pairs of different score among the first few distinct answers that end."""
    first = {text: i for i, text in reversed(list(enumerate(pool.texts))) if pool.ended[i]}
    some = sorted(first.values())[:_PAIRED]
    ranked = [
        sorted(pair, key=lambda i: -pool.scores[i]) for pair in itertools.combinations(some, 2)
    ]
    return [
        _pair(pool, pool.texts[a], pool.texts[b])
        for a, b in ranked
        if pool.scores[a] > pool.scores[b] and pool.texts[a].strip() and pool.texts[b].strip()
    ]


def _pair(pool: Pool, chosen: str, rejected: str) -> dict[str, Any]:
    return {
        "prompt": pool.prompt,
        "chosen": chosen,
        "rejected": rejected,
        "source": pool.source,
        "group": _group(pool),
    }


def _across_prompts(
    config: BestOfNConfig,
    tokenizer: Tokenizer,
    reward: RolloutReward,
    side: Sequence[tuple[Prompt, Pool]],
) -> list[dict[str, Any]]:
    """Pairs that prefer answers which `_pairs` rejects more often than it chooses.

    Each pair draws a prompt to which its worse answer is the best; if its better one scores less
    there, the two make a pair there. No answer gets more such pairs than it needs to be chosen as
    often as rejected, and no pair is repeated.
    """
    pairs = list[tuple[str, str]]()
    known = set[tuple[int, str, str]]()
    best_to: dict[str, list[int]] = {}
    lacking = Counter[str]()
    for place, (_, pool) in enumerate(side):
        own = [(one["chosen"], one["rejected"]) for one in _pairs(pool)]
        known |= {(place, *one) for one in own}
        for better, worse in own:
            lacking[worse] += 1
            lacking[better] -= 1
        if any(fnmatch(pool.source, one) for one in config.across_prompts_except):
            continue
        pairs += own
        for text in sorted({pool.texts[i] for i in pool.usable if pool.scores[i] == pool.best}):
            best_to.setdefault(text, []).append(place)
    rng = np.random.default_rng((config.seed, 3))
    left = [pairs[int(i)] for i in rng.permutation(len(pairs))]
    found = list[dict[str, Any]]()
    for _ in range(_DRAWS):
        left = [one for one in left if lacking[one[1]] > 0 and one[1] in best_to]
        places = [best_to[worse][int(rng.integers(len(best_to[worse])))] for _, worse in left]
        there = [(side[i][0], better) for i, (better, _) in zip(places, left, strict=True)]
        scores = _scores_as_sampled(config, tokenizer, reward, there)
        tried, left = list(zip(places, left, scores, strict=True)), []
        for place, (better, worse), score in tried:
            pool, key = side[place][1], (place, worse, better)
            if lacking[worse] > 0 and score < pool.best and key not in known:
                known.add(key)
                found.append(_pair(pool, worse, better))
                lacking[worse] -= 1
                lacking[better] += 1
            else:
                left.append((better, worse))
    return found


def _scores_as_sampled(
    config: BestOfNConfig,
    tokenizer: Tokenizer,
    reward: RolloutReward,
    answers: Sequence[tuple[Prompt, str]],
) -> Float[np.ndarray, " answers"]:
    """The scores of texts as answers to prompts; infinite if no policy could have sampled one."""
    sampled = [_as_sampled(tokenizer, *one, config.max_new_tokens) for one in answers]
    known = [(i, one) for i, one in enumerate(sampled) if one is not None]
    scores = np.full(len(answers), math.inf)
    for start in range(0, len(known), _ANSWERS_TOGETHER):
        places, some = zip(*known[start : start + _ANSWERS_TOGETHER], strict=True)
        scores[list(places)] = rewards_of(reward, some)
    return scores


def _group(pool: Pool) -> str:
    """The group of a pool's data, which is held out as a whole."""
    return pool.group or json.dumps(pool.prompt, ensure_ascii=False)


# The report.


def powers_of_two(most: int) -> list[int]:
    """1, 2, 4 … up to `most`, and `most` itself."""
    found = [2**i for i in range(most.bit_length()) if 2**i <= most]
    return found if found[-1] == most else [*found, most]


def by_n(pools: Sequence[Pool], n: int) -> dict[str, Estimate]:
    """The mean score and gold of the best of n over prompts, with intervals."""
    groups = [one.group or place for place, one in enumerate(pools)]
    best = [best_of_n(one.scores, one.scores, n) for one in pools]
    found = {"score": ratio(np.array(best), groups=groups)}
    golds = [
        (best_of_n(one.scores, one.gold, n), group)
        for one, group in zip(pools, groups, strict=True)
        if one.gold is not None
    ]
    if golds:
        values, of = zip(*golds, strict=True)
        found["gold"] = ratio(np.array(values), groups=of)
    return found


def _write_report(config: BestOfNConfig, run: Run, pools: Sequence[Pool]) -> None:
    found = {n: by_n(pools, n) for n in powers_of_two(config.n)}
    run.write(
        RESULT,
        {
            "reward": config.reward,
            "gold": config.gold,
            "prompts": len(pools),
            "ended": float(np.mean([one.ended for one in pools])),
            **_earlier_seconds(run.folder / RESULT),
            "best_of": {
                str(n): {"kl_bound": kl_bound(n)} | {k: v.to_json() for k, v in one.items()}
                for n, one in found.items()
            },
        },
    )
    shown = table(config, found, len(pools))
    section = Section("Best of n", "best-of-n", [shown, Plots([plot(found)])])
    lead = f"{config.n} answers of {config.model} to each of {len(pools):,} prompts."
    write_page(
        run.folder / PAGE, Page("Best of n", "What the best of n is worth", lead, [], [section])
    )
    console.print(in_terminal(shown))


def _earlier_seconds(path: Path) -> dict[str, Any]:
    """The seconds that earlier versions wrote into the result. Without them, or with others, runs
    that started from the folder would take it for another one."""
    try:
        found = read_json_object(path)
    except UserError:
        return {}
    return {"seconds": found["seconds"]} if "seconds" in found else {}


def table(config: BestOfNConfig, found: dict[int, dict[str, Estimate]], prompts: int) -> Table:
    """Score and, if measured, gold for every n."""
    names = list(found[1])
    rows: list[list[str | Cell]] = [
        [f"{n}", *(number(one[k]) for k in names), f"{kl_bound(n):.2f}"] for n, one in found.items()
    ]
    remark = (
        f"Means over {prompts:,} prompts with 95 % intervals. The score is {config.reward}, by "
        "which the best is chosen"
        + (f"; gold is {config.gold}." if config.gold else ".")
        + " Nats are the most that this choice can be from the model."
    )
    return text_table("The best of n answers", ("n", *names, "nats"), rows, (remark,))


def plot(found: dict[int, dict[str, Estimate]]) -> Plot:
    """Score and gold against the root of the KL bound."""
    figure, [[axes]] = panels()
    root = [math.sqrt(kl_bound(n)) for n in found]
    for name, drawn in looks(found[1]).items():
        means = np.array([one[name].estimate for one in found.values()])
        low = np.array([one[name].low for one in found.values()])
        high = np.array([one[name].high for one in found.values()])
        axes.plot(root, means, **drawn.both, label=name)
        axes.fill_between(root, low, high, color=drawn.color, alpha=0.15, linewidth=0)
    axes.set_xlabel("root of the nats")
    axes.set_ylabel("mean of the best of n")
    axes.legend(frameon=False)
    return Plot("best-of-n", "What the best of n is worth; the band is the 95 % interval.", figure)
