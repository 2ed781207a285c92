"""Ollama's Modelfile: the GGUF file, the conversation template, and sampling settings.

Ollama does not run Jinja. It has its own templates in Go's language, and picks the one that it
knows to match the model's Jinja. It may not recognize our templates, so the Modelfile contains one.
(https://github.com/ollama/ollama/blob/main/docs/modelfile.md)"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from typing import Any

from groundup.errors import UserError
from groundup.text.chat import render_chat
from groundup.text.tokenizer import Tokenizer

# ChatML as Go's text/template: every message, then the start of the assistant's turn.
_CHATML_GO = """\
{{- range .Messages }}<|im_start|>{{ .Role }}
{{ .Content }}<|im_end|>
{{ end }}<|im_start|>assistant
"""
# This line identifies our files, which may be replaced unless they were edited.
_MARK = "# written by groundup export"
_MAX_CONTEXT = 8_192
_QUESTION: dict[str, str] = {"role": "user", "content": "Q"}
_PROBES: tuple[list[dict[str, str]], ...] = (
    [{"role": "system", "content": "S"}, _QUESTION],
    [
        {"role": "system", "content": "S"},
        _QUESTION,
        {"role": "assistant", "content": "A"},
        {"role": "user", "content": "R"},
    ],
)


def modelfile(
    file: str, tokenizer: Tokenizer, *, context: int, sampling: Mapping[str, Any] | None = None
) -> str:
    """The Modelfile for the GGUF file named `file`.

    `context` is the number of tokens the model sees; `sampling` may hold temperature, top_p, top_k,
    min_p and repetition_penalty, as in a folder's generation_config.json.
    """
    lines = [f"FROM ./{file}"]
    system = chatml_system(tokenizer)
    if system is None:
        lines.append("# Ollama finds the conversation's format in the GGUF file, if it knows it.")
    else:
        lines.append(f'TEMPLATE """{_CHATML_GO}"""')
        if system:
            lines.append(f'SYSTEM """{system}"""')
    stops = sorted(tokenizer.decode([id]) for id in tokenizer.stop_ids)
    # A foreign token may contain quotes and line breaks, which would inject lines into the file.
    lines += [f'PARAMETER stop "{s}"' for s in stops if s and s.isprintable() and '"' not in s]
    # Ollama reserves memory for the whole context, so a model with a very large one gets less.
    lines.append(f"PARAMETER num_ctx {min(context, _MAX_CONTEXT)}")
    names = {"repetition_penalty": "repeat_penalty"}
    for name in ("temperature", "top_p", "top_k", "min_p", "repetition_penalty"):
        value = (sampling or {}).get(name)
        if isinstance(value, int | float) and not isinstance(value, bool):
            lines.append(f"PARAMETER {names.get(name, name)} {value}")
    said = "\n".join(lines) + "\n"
    return f"{said}{_MARK}, {_digest(said)}\n"


def written(text: str) -> tuple[str, bool] | None:
    """The GGUF file named in one of our Modelfiles, and whether the Modelfile was edited since.

    None for any other Modelfile.
    """
    said, mark, digest = text.partition(_MARK)
    named = re.match(r"FROM \./(.+)\n", said)
    if not mark or named is None:
        return None
    digest = digest.strip(", \n")  # earlier versions wrote none
    return named[1], bool(digest) and digest != _digest(said)


def chatml_system(tokenizer: Tokenizer) -> str | None:
    """The system message that a ChatML template adds by itself, "" for none; else None.

    Compares the template's output with ChatML's, so that Qwen's and SmolLM2's templates are
    recognized as well as ours.
    """
    try:
        for messages in _PROBES:
            if render_chat(tokenizer, messages, generation_prompt=True) != _chatml(messages):
                return None
        rendered = render_chat(tokenizer, [_QUESTION], generation_prompt=True)
    except UserError:  # no template, or one that refuses a plain conversation
        return None
    alone = _chatml([_QUESTION])
    if rendered == alone:
        return ""
    before, system = rendered.removesuffix(alone), "<|im_start|>system\n"
    if before == rendered or not before.startswith(system) or not before.endswith("<|im_end|>\n"):
        return None
    said = before.removeprefix(system).removesuffix("<|im_end|>\n")
    # Three quotes would end the Modelfile's string.
    return None if "<|im_" in said or '"""' in said or "\r" in said else said


def _digest(said: str) -> str:
    return hashlib.sha256(said.encode()).hexdigest()[:16]


def _chatml(messages: list[dict[str, str]]) -> str:
    turns = (f"<|im_start|>{one['role']}\n{one['content']}<|im_end|>\n" for one in messages)
    return "".join(turns) + "<|im_start|>assistant\n"
