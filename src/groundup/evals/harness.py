"""The lm-evaluation-harness drives our models: any of its tasks runs (extra `lm-eval`).

The harness (Gao et al. 2021, EleutherAI/lm-evaluation-harness) asks a model three things: how
likely a continuation is, how likely a whole text is, and what it writes until a stop string. Here
`GroundupLM` answers them with our own scoring and generation, with the tokens that the harness's
own adapter for transformers would make. So `lm_eval.simple_evaluate(model=GroundupLM(…), …)` works.

Its tasks fetch their data from a hub. Those named `groundup_…` need none: they are the sets of the
core suite, written as task files and JSON Lines from the packs.

In a chat, unlike there, a text never becomes a control token, and the answer begins where the
assistant's turn does: a control token stands in a prompt only where the chat template put it.
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

# What the harness's own adapter lets a model write where the task does not say.
_MAX_NEW_TOKENS = 256


class GroundupLM(LM):
    """A model of ours as the harness knows one.

    A prompt that is too long loses its beginning. Everything is one process and one device.
    `repetition_penalty` is the model's own (`penalty_of`), for tasks that give none.
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
        # What the chat template made, and its tokens: the text alone would not tell them.
        self._chats: dict[str, list[int]] = {}

    # How likely.

    def loglikelihood(self, requests: list[Instance]) -> list[tuple[float, bool]]:
        """log p of each continuation after its context, and whether it is what greedy would say."""
        pairs = [self._pair(*request.args) for request in requests]
        return [(one.total, one.greedy) for one in self._score(pairs)]

    def loglikelihood_rolling(self, requests: list[Instance]) -> list[float]:
        """log p of each text as a whole, through windows that share one token."""
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

    # What it writes.

    def generate_until(self, requests: list[Instance]) -> list[str]:
        """What the model writes after each context, up to the first stop string."""
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
        """What the harness tells caches of requests apart by."""
        return f"{self._name}-{self._tokenizer.hash[:12]}"

    def chat_template(self, chat_template: bool | str = False) -> str | None:
        """The template's source, for the harness's records."""
        return self._tokenizer.chat_template or ""

    def apply_chat_template(
        self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True
    ) -> str:
        """The prompt as text; its tokens are kept, since no text may become a control token.

        Without a generation prompt the last message is the beginning of the assistant's answer.
        """
        begun = "" if add_generation_prompt else chat_history[-1]["content"]
        messages = chat_history if add_generation_prompt else chat_history[:-1]
        text = render_chat(self._tokenizer, messages, generation_prompt=True) + begun
        ids = encode_chat(self._tokenizer, messages, generation_prompt=True).ids
        self._chats[text] = [*ids, *self._tokenizer.encode(begun)]
        return text


def _prefix_token(model: CausalLM, tokenizer: Tokenizer) -> int:
    """What a whole text, or a continuation of nothing, stands after to the harness.

    That is what the folder's tokenizer calls `bos_token`, else its `eos_token`, as in the harness's
    own adapter, which does not look at the model's config.
    """
    named = [id for id in (tokenizer.bos_id, tokenizer.eos_id) if id is not None]
    return named[0] if named else opening_of(model, tokenizer)


def penalty_of(folder: Path) -> float:
    """The repetition penalty that a model's folder asks for, also where it is greedy: it says which
    token is likeliest. Raises UserError for one that is none."""
    file = generation_config_of(folder)
    said = None if file is None else read_json_object(file).get("repetition_penalty")
    if said is None:
        return 1.0
    try:
        return Sampling(repetition_penalty=said).repetition_penalty
    except UserError as error:
        raise UserError(f"{file} says {error}; correct it there") from None


def sampling_of(settings: Mapping[str, Any]) -> Sampling:
    """A task's `generation_kwargs` as we draw: greedy unless it says `do_sample`.

    Raises UserError for a setting that is not known here, since leaving it out would give a number
    of something else.
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
            "not know; leave it out of the task file"
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
    for a task that is not known.
    """
    files = [Path(task) for task in tasks if _is_file(task)]
    names = [_task_of(Path(task)) if _is_file(task) else task for task in tasks]
    folders = [*include, *dict.fromkeys(file.parent for file in files)]
    # Reading the harness's ten thousand task files takes a while: only where one may be meant.
    manager = TaskManager(include_path=list(folders) or None, include_defaults=False)
    if not set(names) <= set(manager.all_tasks):
        manager = TaskManager(include_path=list(folders) or None)
    unknown = [name for name in names if not manager.match_tasks([name])]
    if unknown:
        raise UserError(
            f"the harness knows no task {unknown[0]!r}; see the names with lm-eval ls tasks, or "
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
    """What a task file names as `!function module.name`."""

    named: str


class _TaskLoader(yaml.SafeLoader):
    """Reads task files and imports nothing."""


_TaskLoader.add_constructor("!function", lambda loader, node: _Function(str(node.value)))


def task_files(tasks: Sequence[str], include: Path | None) -> list[Path]:
    """The local files that decide what is asked: the task files among `tasks` and in the folder
    `include`, and whatever they include, call or read, as far as it lies here."""
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
            except (yaml.YAMLError, UnicodeDecodeError):  # the harness says what is wrong with it
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
    """The strings in a value, at whatever depth."""
    if isinstance(said, str):
        yield said
    elif isinstance(said, dict | list):
        for one in said.values() if isinstance(said, dict) else said:
            yield from _strings(one)


def _is_file(task: str) -> bool:
    return task.endswith((".yaml", ".yml"))


def _task_of(file: Path) -> str:
    """The name that a task file gives its task or group; its functions are not looked at here."""
    if not file.is_file():
        raise UserError(f"there is no task file {str(file)!r}; check its name")
    named = re.search(r"^(?:task|group):\s*[\"']?([\w.-]+)", file.read_text("utf-8"), re.MULTILINE)
    if named is None:
        raise UserError(f"{str(file)!r} has no line 'task: NAME'; add one")
    return named.group(1)
