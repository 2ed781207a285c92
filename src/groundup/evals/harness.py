"""Runs any task of the lm-evaluation-harness on our models (extra `lm-eval`).

The harness (Gao et al. 2021, EleutherAI/lm-evaluation-harness) asks three things of a model: the
likelihood of a continuation, the likelihood of a whole text, and a generation up to a stop string.
`GroundupLM` answers them with our own scoring and generation, using the same tokens as the
harness's own adapter for transformers: `lm_eval.simple_evaluate(model=GroundupLM(…), …)`.

The harness's tasks download their data from a hub. Those named `groundup_…` need no download: they
are the sets of the core suite, written as task files and JSON Lines from the packs.

Unlike the harness's adapter, this one never turns text of a chat into control tokens, which only
the chat template may add, and an answer begins at the assistant's turn.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from groundup.errors import UserError, installing
from groundup.evals.continuations import (
    Pair,
    Scored,
    continuation_logprobs,
    encode_pair,
    opening_of,
)
from groundup.formats.adapter import generation_config_of
from groundup.generation.generate import generate
from groundup.generation.request import Request
from groundup.generation.sampling import Sampling
from groundup.lm.model import CausalLM
from groundup.runs.files import read_json_object
from groundup.text.chat import encode_chat, render_chat
from groundup.text.tokenizer import Tokenizer

try:
    from lm_eval import simple_evaluate
    from lm_eval.api.model import LM
    from lm_eval.tasks import TaskManager
    from lm_eval.utils import get_rolling_token_windows, make_disjoint_window
except ImportError as missing:
    raise UserError(
        f"the suite lm-eval needs the lm-evaluation-harness; run {installing('lm-eval')}"
    ) from missing

if TYPE_CHECKING:
    from lm_eval.api.instance import Instance

# The harness's own default for generations whose task sets no limit.
_MAX_NEW_TOKENS = 256


class GroundupLM(LM):
    """The harness's interface to a model of ours, on one process and one device.

    A prompt that is too long is cut at its beginning. `repetition_penalty` is the model's own
    (`penalty_of`), for tasks that set none.
    """

    def __init__(
        self,
        model: CausalLM,
        tokenizer: Tokenizer,
        *,
        name: str = "model",
        batch_size: int = 32,
        repetition_penalty: float = 1.0,
    ) -> None:
        super().__init__()
        self._penalty = repetition_penalty
        self._model, self._tokenizer, self._name = model, tokenizer, name
        self._batch_size = batch_size
        self._context = model.config.max_position_embeddings
        self._opening = _prefix_token(model, tokenizer)
        # Prompts made by the chat template, with their tokens, which the text alone does not give.
        self._chats: dict[str, list[int]] = {}

    # Likelihoods.

    def loglikelihood(self, requests: list[Instance]) -> list[tuple[float, bool]]:
        """log p of each continuation after its context, and whether greedy decoding gives it."""
        pairs = [self._pair(*request.args) for request in requests]
        return [(one.total, one.greedy) for one in self._score(pairs)]

    def loglikelihood_rolling(self, requests: list[Instance]) -> list[float]:
        """log p of each whole text, through windows that share one token."""
        pairs: list[Pair] = []
        owners: list[int] = []
        for number, request in enumerate(requests):
            windows = get_rolling_token_windows(
                token_list=self._encode(request.args[0]),
                prefix_token=self._opening,
                max_seq_len=self._context,
                context_len=1,
            )
            for prompt, continuation in map(make_disjoint_window, windows):
                pairs.append(Pair(tuple(prompt), tuple(continuation)))
                owners.append(number)
        totals = [0.0] * len(requests)
        for owner, one in zip(owners, self._score(pairs), strict=True):
            totals[owner] += one.total
        return totals

    def _score(self, pairs: Sequence[Pair]) -> list[Scored]:
        return continuation_logprobs(self._model, pairs, context=self._context)

    def _pair(self, context: str, continuation: str) -> Pair:
        chat = self._chats.get(context)
        if chat is None:
            return encode_pair(self._tokenizer, context, continuation, self._opening)
        return Pair(tuple(chat), tuple(self._tokenizer.encode(continuation)))

    def _encode(self, text: str) -> list[int]:
        chat = self._chats.get(text)
        return (
            [*self._tokenizer.opening_ids, *self._tokenizer.encode(text)] if chat is None else chat
        )

    # Generation.

    def generate_until(self, requests: list[Instance]) -> list[str]:
        """The generation after each context, up to the first stop string."""
        asked = []
        for request in requests:
            context, settings = request.args
            sampling = sampling_of({"repetition_penalty": self._penalty, **settings})
            room = self._context - sampling.max_new_tokens
            if room < 1:
                raise UserError(
                    f"the task asks for {sampling.max_new_tokens} new tokens, but the model's "
                    f"context is {self._context}; choose a task with shorter answers"
                )
            ids = self._encode(context)[-room:] or [self._opening]
            asked.append(Request(prompt_ids=ids, sampling=sampling))
        completions = generate(self._model, asked, self._tokenizer, batch_size=self._batch_size)
        return [one.text for one in completions]

    # Chat.

    @property
    def tokenizer_name(self) -> str:
        """The key by which the harness separates its caches of requests."""
        return f"{self._name}-{self._tokenizer.hash[:12]}"

    def chat_template(self, chat_template: bool | str = False) -> str | None:
        """The template's source, for the harness's records."""
        return self._tokenizer.chat_template or ""

    def apply_chat_template(
        self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True
    ) -> str:
        """The prompt as text; its tokens are kept, because text must not become control tokens.

        Without a generation prompt the last message is the beginning of the assistant's answer.
        """
        begun = "" if add_generation_prompt else chat_history[-1]["content"]
        messages = chat_history if add_generation_prompt else chat_history[:-1]
        text = render_chat(self._tokenizer, messages, generation_prompt=True) + begun
        ids = encode_chat(self._tokenizer, messages, generation_prompt=True).ids
        self._chats[text] = [*ids, *self._tokenizer.encode(begun)]
        return text


def _prefix_token(model: CausalLM, tokenizer: Tokenizer) -> int:
    """The token before a whole text or before the continuation of an empty context.

    As in the harness's own adapter it is the tokenizer's `bos_token`, else its `eos_token`; the
    model's config is not used.
    """
    named = [id for id in (tokenizer.bos_id, tokenizer.eos_id) if id is not None]
    return named[0] if named else opening_of(model, tokenizer)


def penalty_of(folder: Path) -> float:
    """The repetition penalty in a model's generation config; it applies to greedy decoding too.
    Raises UserError for an invalid one."""
    file = generation_config_of(folder)
    said = None if file is None else read_json_object(file).get("repetition_penalty")
    if said is None:
        return 1.0
    try:
        return Sampling(repetition_penalty=said).repetition_penalty
    except UserError as error:
        raise UserError(f"{file} says {error}; correct it there") from None


def sampling_of(settings: Mapping[str, Any]) -> Sampling:
    """A task's `generation_kwargs` as our settings: greedy unless `do_sample` is set.

    Raises UserError for an unknown setting, because ignoring it would measure something else.
    """
    given = dict(settings)
    stop = given.pop("until", None) or []
    stop = [stop] if isinstance(stop, str) else stop
    limits = [
        given.pop(name, None)
        for name in ("max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens")
    ]
    limit = next((one for one in limits if one is not None), _MAX_NEW_TOKENS)
    samples = given.pop("do_sample", None)
    temperature = float(given.pop("temperature", 0.0 if not samples else 1.0))
    filters = ("top_k", "top_p", "min_p")
    penalties = ("repetition_penalty", "presence_penalty", "frequency_penalty")
    known = {name: given.pop(name) for name in (*filters, *penalties) if name in given}
    if given:
        raise UserError(
            f"the task's generation_kwargs hold {', '.join(sorted(given))}, which groundup does "
            "not support; leave it out of the task file"
        )
    return Sampling(
        temperature=0.0 if samples is False else temperature,
        max_new_tokens=int(limit),
        stop=tuple(one for one in stop if one),
        **known,
    )


# Running tasks.


def evaluate_tasks(
    lm: GroundupLM,
    tasks: Sequence[str],
    *,
    include: Sequence[Path] = (),
    limit: int | None = None,
    examples: int | None = None,
    chat: bool = False,
) -> dict[str, Any]:
    """The harness's own results: `results` by task, and `samples` question by question.

    `tasks` are names or task files; `include` are folders with further task files. Raises UserError
    for an unknown task.
    """
    files = [Path(task) for task in tasks if _is_file(task)]
    names = [_task_of(Path(task)) if _is_file(task) else task for task in tasks]
    folders = [*include, *dict.fromkeys(file.parent for file in files)]
    # Reading the harness's ten thousand task files is slow: do so only if one may be needed.
    manager = TaskManager(include_path=list(folders) or None, include_defaults=False)
    if not set(names) <= set(manager.all_tasks):
        manager = TaskManager(include_path=list(folders) or None)
    unknown = [name for name in names if not manager.match_tasks([name])]
    if unknown:
        raise UserError(
            f"the harness has no task {unknown[0]!r}; see the names with lm-eval ls tasks, or "
            "give a task file (.yaml)"
        )
    found: dict[str, Any] = simple_evaluate(
        model=lm,
        tasks=names,
        num_fewshot=examples,
        limit=limit,
        apply_chat_template=chat,
        task_manager=manager,
        bootstrap_iters=1000,
    )
    return found


@dataclass(frozen=True)
class _Function:
    """A function that a task file names as `!function module.name`."""

    named: str


class _TaskLoader(yaml.SafeLoader):
    """Reads task files without importing anything."""


_TaskLoader.add_constructor("!function", lambda loader, node: _Function(str(node.value)))


def task_files(tasks: Sequence[str], include: Path | None) -> list[Path]:
    """The local files that determine the questions: the task files among `tasks` and in the folder
    `include`, and the local files that they include, call or read."""
    left = [Path(task) for task in tasks if _is_file(task)]
    if include is not None:
        left += sorted(path for path in include.rglob("*") if _is_file(path.name))
    found: dict[Path, None] = {}
    while left:
        path = left.pop(0)
        if path in found or not path.is_file():
            continue
        found[path] = None
        if _is_file(path.name):
            try:
                said = yaml.load(path.read_text("utf-8"), _TaskLoader)
            except (yaml.YAMLError, UnicodeDecodeError):  # the harness reports the error
                continue
            left += _named_files(said, path.parent)
    return list(found)


def _named_files(said: object, folder: Path) -> Iterator[Path]:
    """The files that a part of a task file in `folder` may name."""
    if isinstance(said, _Function):
        yield folder / f"{said.named.rpartition('.')[0].replace('.', '/')}.py"
    elif isinstance(said, list):
        for one in said:
            yield from _named_files(one, folder)
    elif isinstance(said, dict):
        for key, value in said.items():
            if key == "include":
                yield from (folder / one for one in _strings(value))
            elif key == "data_files":
                yield from map(Path, _strings(value))
            else:
                yield from _named_files(value, folder)


def _strings(said: object) -> Iterator[str]:
    """The strings in a value, at any depth."""
    if isinstance(said, str):
        yield said
    elif isinstance(said, dict | list):
        for one in said.values() if isinstance(said, dict) else said:
            yield from _strings(one)


def _is_file(task: str) -> bool:
    return task.endswith((".yaml", ".yml"))


def _task_of(file: Path) -> str:
    """The name of the task or group in a task file; its functions are not loaded."""
    if not file.is_file():
        raise UserError(f"there is no task file {str(file)!r}; check its name")
    named = re.search(r"^(?:task|group):\s*[\"']?([\w.-]+)", file.read_text("utf-8"), re.MULTILINE)
    if named is None:
        raise UserError(f"{str(file)!r} has no line 'task: NAME'; add one")
    return named.group(1)
