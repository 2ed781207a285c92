"""Chat templates: render a list of messages to the text that a model reads, without trusting them.

A chat template is a Jinja program that comes with a model folder. Our own, ChatML, is recognized by
its hash and rendered here. Any other is foreign code: it is rendered in Jinja's immutable sandbox,
in a separate process with two seconds, 512 MB and an empty environment (`runs.sandbox`). That
process loads this file alone, which therefore imports nothing of groundup at the top.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import jinja2
from jinja2 import meta, nodes
from jinja2.ext import Extension
from jinja2.parser import Parser
from jinja2.runtime import Context, Macro
from jinja2.sandbox import ImmutableSandboxedEnvironment

if TYPE_CHECKING:
    from groundup.runs.sandbox import Sandbox

# The generation block encloses the assistant's words. The closing <|im_end|> belongs to them (a
# model must learn to stop), the line break after it does not.
CHATML = """\
{%- for message in messages %}
    {{- '<|im_start|>' + message['role'] + '\\n' }}
    {%- if message['role'] == 'assistant' %}
        {%- generation %}
            {{- message['content'] + '<|im_end|>' }}
        {%- endgeneration %}
        {{- '\\n' }}
    {%- else %}
        {{- message['content'] + '<|im_end|>\\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
{%- endif %}
"""

CPU_SECONDS = 2.0  # ChatML renders in 50 µs; a large tool template in 20 ms
WALL_SECONDS = 20.0  # for a template that waits, or a busy machine
MEMORY_BYTES = 512 * 2**20
ANSWER_CHARS = 32 * 2**20  # longer text would be an attack on the process that reads it


class TemplateFailed(Exception):
    """The template could not be rendered; the message says why."""


def _now() -> str:
    """Inside a run, the run's start time, so that a resumed run has the same tokens."""
    from groundup.runs.folder import run_started

    return (run_started.get() or datetime.now()).isoformat()


@dataclass(frozen=True)
class Renderings:
    """Messages to render up to each of several cuts, and the template's variables.

    A cut is a number of messages and whether a generation prompt follows them. `breaks` is a
    pattern and a mark, if the messages have that mark after matches of the pattern: strings that
    the template searches for in them then get the mark, too. `tools` is the variable of that name,
    and `now` is the time given to the template.
    """

    messages: list[dict[str, Any]]
    cuts: list[tuple[int, bool]]
    variables: dict[str, str]
    breaks: tuple[str, str] | None = None
    tools: list[Any] | None = None
    now: str = field(default_factory=_now)


def render(template: str, renderings: Renderings) -> list[str]:
    """Render `template` once for each cut of `renderings`.

    The text of a generation block is enclosed in the characters given as the variables
    `generation_start` and `generation_end`, if they are given.

    Raises TemplateFailed if the template is not valid Jinja, refuses the messages, or exceeds the
    limits of time or memory.
    """
    if hashlib.sha256(template.encode("utf-8", "surrogatepass")).digest() in _OWN_TEMPLATES:
        return _render_here(template, renderings)
    return _render_sandboxed(template, renderings)


_OWN_TEMPLATES = {hashlib.sha256(CHATML.encode()).digest()}


def _render_here(template: str, renderings: Renderings) -> list[str]:
    """Render in this process, in the sandbox."""
    try:
        compiled = _compile(template, *(renderings.breaks or ()))
        now = datetime.fromisoformat(renderings.now)
        return [
            compiled.render(
                messages=renderings.messages[:count],
                add_generation_prompt=prompt,
                tools=renderings.tools,
                documents=None,
                strftime_now=lambda form: now.strftime(form),
                **renderings.variables,
            )
            for count, prompt in renderings.cuts
        ]
    except jinja2.TemplateSyntaxError as error:
        raise TemplateFailed(f"line {error.lineno}: {error.message}") from error
    except MemoryError as error:
        raise TemplateFailed(f"it needs more than {MEMORY_BYTES >> 20} MB") from error
    except Exception as error:  # a template can raise any Python exception
        raise TemplateFailed(str(error) or type(error).__name__) from error


@lru_cache(maxsize=8)
def _compile(template: str, pattern: str = "", mark: str = "") -> jinja2.Template:
    environment = _environment()
    parsed = environment.parse(template)
    if pattern:
        _mark_searched_strings(parsed, re.compile(pattern, re.DOTALL), mark)
    return environment.from_string(parsed)


def _environment() -> ImmutableSandboxedEnvironment:
    """The settings, filters and functions that chat templates expect."""
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, "jinja2.ext.loopcontrols"]
    )
    environment.filters["tojson"] = _to_json
    environment.globals["raise_exception"] = _raise_exception
    return environment


# Not `replace`, which could replace a message's string by one of the template's control strings.
_SEARCH_METHODS = frozenset(
    {"count", "endswith", "find", "index", "partition", "removeprefix", "removesuffix", "rfind",
     "rindex", "rpartition", "rsplit", "split", "startswith"}
)  # fmt: skip


def _mark_searched_strings(template: nodes.Template, pattern: re.Pattern[str], mark: str) -> None:
    """Put `mark` into the strings that the template searches for in others.

    So `content.split('</think>')` still works, although the message's string is broken.
    """
    searched: list[nodes.Node] = []
    for call in template.find_all(nodes.Call):
        if isinstance(call.node, nodes.Getattr) and call.node.attr in _SEARCH_METHODS:
            searched += call.args
    for one in template.find_all(nodes.Compare):
        if one.ops[0].op in ("in", "notin"):
            searched.append(one.expr)
    for const in searched:
        if isinstance(const, nodes.Const) and isinstance(const.value, str):
            const.value = pattern.sub(lambda found: found.group() + mark, const.value)


@lru_cache(maxsize=8)
def names_in(template: str) -> frozenset[str]:
    """The variables that a template reads, such as `tools`, and its fields with a leading dot, such
    as `.tool_calls`. Empty for a template that cannot be parsed.
    """
    if hashlib.sha256(template.encode("utf-8", "surrogatepass")).digest() in _OWN_TEMPLATES:
        return frozenset(_names(_environment().parse(template)))
    return frozenset(
        (_sandbox().ask({"template": template, "strings": True}) or {}).get("names", ())
    )


def _names(template: nodes.Template) -> Iterator[str]:
    yield from meta.find_undeclared_variables(template)
    for node in template.find_all((nodes.Getattr, nodes.Const)):
        name = node.attr if isinstance(node, nodes.Getattr) else getattr(node, "value", None)
        if isinstance(name, str) and name.isidentifier():
            yield f".{name}"


# Variables that every rendering defines.
_RENDER_VARIABLES = frozenset(
    {"messages", "tools", "documents", "add_generation_prompt", "strftime_now"}
)


def variables_of(template: str) -> list[str]:
    """The variables that change what a template writes, such as `enable_thinking`: those that it
    reads and that neither the messages nor the tokenizer define."""
    given = _RENDER_VARIABLES.union(_environment().globals)
    names = {name for name in names_in(template) if not name.startswith(".")} - given
    return sorted(name for name in names if not name.endswith("_token"))


def with_variables(template: str, variables: Mapping[str, bool | str]) -> str:
    """The template with default values for these variables.

    The defaults are set in the template's first line, so that every program that renders it gets
    the same prompt. A text that is a number, true or false in JSON becomes that value.
    """
    set_first = "".join(
        f"{{%- if {name} is not defined %}}{{%- set {name} = {_in_jinja(value)} %}}{{%- endif %}}"
        for name, value in variables.items()
    )
    return f"{set_first}\n{template}" if set_first else template  # Jinja omits this line end


def _in_jinja(value: bool | str) -> str:
    """A value as a Jinja literal: texts as in Python, everything else as in JSON."""
    read: object = value
    if isinstance(value, str):
        try:
            read = json.loads(value)
        except (ValueError, RecursionError):
            return ascii(value)
    number = isinstance(read, int | float) and math.isfinite(read)
    return json.dumps(read) if number else ascii(value)


@lru_cache(maxsize=8)
def written_strings(template: str) -> tuple[str, ...]:
    """The texts that a template may write, or searches for in messages.

    Names of variables, fields and roles are excluded. For a template that cannot be parsed, the
    whole template.
    """
    if hashlib.sha256(template.encode("utf-8", "surrogatepass")).digest() in _OWN_TEMPLATES:
        return tuple(_strings(_environment().parse(template)))
    found = _sandbox().ask({"template": template, "strings": True}) or {}
    return tuple(found.get("strings", [template]))


# The arguments of these filters are field names and values to compare with.
_SELECTION_FILTERS = frozenset(
    {"attr", "groupby", "map", "max", "min", "reject", "rejectattr", "select", "selectattr", "sort",
     "sum", "unique"}
)  # fmt: skip


def _strings(node: nodes.Node) -> Iterator[str]:
    parts: list[nodes.Node] = list(node.iter_child_nodes())
    searched: list[nodes.Node] = []
    if isinstance(node, nodes.TemplateData):
        yield node.data
    elif isinstance(node, nodes.Const) and isinstance(node.value, str):
        yield node.value
    elif isinstance(node, nodes.Getitem):
        parts = [node.node, *([] if isinstance(node.arg, nodes.Const) else [node.arg])]
    elif isinstance(node, nodes.Pair):
        parts = [node.value]
    elif isinstance(node, nodes.Test) or (
        isinstance(node, nodes.Filter) and node.name in _SELECTION_FILTERS
    ):
        parts = [node.node] if node.node else []
    elif isinstance(node, nodes.Compare):
        parts = [one for one in (node.expr, *(op.expr for op in node.ops)) if not _literal(one)]
        searched = [node.expr] if node.ops[0].op in ("in", "notin") else []
    elif isinstance(node, nodes.Call):
        name = node.node
        if isinstance(name, nodes.Name) and name.name == "raise_exception":
            parts = []
        elif isinstance(name, nodes.Getattr) and name.attr in {"get", *_SEARCH_METHODS}:
            parts = [part for part in parts if not isinstance(part, nodes.Const)]
            searched = [*node.args] if name.attr in _SEARCH_METHODS else []
    for one in searched:
        # Strings that look like names are fields that a message may have.
        if isinstance(one, nodes.Const) and isinstance(one.value, str):
            yield from () if one.value.isidentifier() else (one.value,)
    for part in parts:
        yield from _strings(part)


def _literal(node: nodes.Node) -> bool:
    return isinstance(node, nodes.Literal)


class _Generation(Extension):
    """The block `{% generation %} … {% endgeneration %}`, which encloses the assistant's words."""

    tags = {"generation"}  # noqa: RUF012  (Jinja declares it so)

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        call = self.call_method("_between_marks", [nodes.ContextReference()])
        return nodes.CallBlock(call, [], [], body).set_lineno(line)

    def _between_marks(self, context: Context, caller: Macro) -> str:
        start, end = context.get("generation_start", ""), context.get("generation_end", "")
        return f"{start}{caller()}{end}"


def _to_json(
    value: Any, ensure_ascii: bool = False, indent: int | None = None, **options: Any
) -> str:
    """Write plain JSON; Jinja's own filter would escape it for HTML."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, **options)


def _raise_exception(message: str) -> NoReturn:
    raise jinja2.TemplateError(message)


@lru_cache(maxsize=1)
def _sandbox() -> Sandbox:
    """The process that renders foreign templates: started on first use, then kept."""
    from groundup.runs.sandbox import Limits, Sandbox

    return Sandbox(Path(__file__), Limits(WALL_SECONDS, CPU_SECONDS, MEMORY_BYTES))


def _render_sandboxed(template: str, renderings: Renderings) -> list[str]:
    found = _sandbox().ask({"template": template, "renderings": vars(renderings)})
    if found is None:
        raise TemplateFailed(f"it takes more than {CPU_SECONDS:g} s, or too much memory")
    if "failed" in found:
        raise TemplateFailed(found["failed"])
    texts: list[str] = found["texts"]
    return texts


def answer(question: Mapping[str, Any]) -> dict[str, Any]:
    """Runs in the sandbox: returns the rendered texts, or the reason for a failure."""
    if question.get("strings"):
        return _answer_strings(question["template"])
    try:
        texts = _render_here(question["template"], Renderings(**question["renderings"]))
        if sum(map(len, texts)) > ANSWER_CHARS:
            raise TemplateFailed(f"it writes more than {ANSWER_CHARS >> 20} million characters")
        return {"texts": texts}
    except TemplateFailed as failure:
        return {"failed": str(failure)[:500]}
    except MemoryError:
        return {"failed": f"it needs more than {MEMORY_BYTES >> 20} MB"}


def _answer_strings(template: str) -> dict[str, Any]:
    try:
        parsed = _environment().parse(template)
        return {"strings": list(_strings(parsed)), "names": sorted({*_names(parsed)})}
    except (jinja2.TemplateError, RecursionError, MemoryError):
        return {}
