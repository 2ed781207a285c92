"""Chat templates: from a list of messages to the text that a model reads, without trusting it.

A chat template is a Jinja program that comes with a model folder. Our own, ChatML, is known by its
hash and renders here. Any other is a stranger's program: it renders in Jinja's immutable sandbox,
in a process of its own that has two seconds and 512 MB, and no environment worth reading.

This file is also that process: run as a script it answers one JSON line with another. It therefore
imports nothing of groundup at the top.
"""

from __future__ import annotations

import atexit
import hashlib
import json
import os
import signal
import subprocess
import sys
import threading
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Any, NoReturn

import jinja2
from jinja2 import nodes
from jinja2.ext import Extension
from jinja2.parser import Parser
from jinja2.runtime import Context, Macro
from jinja2.sandbox import ImmutableSandboxedEnvironment

# What stands between generation and endgeneration is what the assistant says: its closing
# <|im_end|> is part of that (a model must learn to stop), the line break after it is not.
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
WALL_SECONDS = 20.0  # for a template that waits instead of working, on a machine that is busy
MEMORY_BYTES = 512 * 2**20
ANSWER_CHARS = 32 * 2**20  # a longer text is an attack on the reader of the pipe


class TemplateFailed(Exception):
    """The template could not be rendered; the message says why."""


@dataclass(frozen=True)
class Renderings:
    """What to render: the messages up to each of several places, and what the template may read.

    A cut is how many of the messages there are, and whether a generation prompt follows them.
    """

    messages: list[dict[str, str]]
    cuts: list[tuple[int, bool]]
    variables: dict[str, str]


def render(template: str, renderings: Renderings) -> list[str]:
    """Render `template` once for each cut of `renderings`.

    Where the template has a generation block, its text is put between the characters given as the
    variables `generation_start` and `generation_end`, if they are given.

    Raises TemplateFailed if the template is not valid Jinja, refuses the messages, or takes more
    time or memory than a template may.
    """
    if hashlib.sha256(template.encode("utf-8", "surrogatepass")).digest() in _OWN_TEMPLATES:
        return _render_here(template, renderings)
    return _stranger.render(template, renderings)


_OWN_TEMPLATES = {hashlib.sha256(CHATML.encode()).digest()}


def _render_here(template: str, renderings: Renderings) -> list[str]:
    """Render in this process, in the sandbox."""
    try:
        compiled = _compile(template)
        return [
            compiled.render(
                messages=renderings.messages[:count],
                add_generation_prompt=prompt,
                tools=None,
                documents=None,
                **renderings.variables,
            )
            for count, prompt in renderings.cuts
        ]
    except jinja2.TemplateSyntaxError as error:
        raise TemplateFailed(f"line {error.lineno}: {error.message}") from error
    except MemoryError as error:
        raise TemplateFailed(f"it needs more than {MEMORY_BYTES >> 20} MB") from error
    except Exception as error:  # a template can raise whatever Python can
        raise TemplateFailed(str(error) or type(error).__name__) from error


@lru_cache(maxsize=8)
def _compile(template: str) -> jinja2.Template:
    """Compile `template` with the settings, filters and functions that chat templates rely on."""
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, "jinja2.ext.loopcontrols"]
    )
    environment.filters["tojson"] = _to_json
    environment.globals["raise_exception"] = _raise_exception
    environment.globals["strftime_now"] = lambda form: datetime.now().strftime(form)
    return environment.from_string(template)


class _Generation(Extension):
    """The block `{% generation %} … {% endgeneration %}`, within which the assistant speaks."""

    tags = {"generation"}  # noqa: RUF012  (Jinja declares it so)

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        call = self.call_method("_between_marks", [nodes.ContextReference()])
        return nodes.CallBlock(call, [], [], body).set_lineno(line)

    def _between_marks(self, context: Context, caller: Macro) -> str:
        start, end = context.get("generation_start", ""), context.get("generation_end", "")
        return f"{start}{caller()}{end}"


def _to_json(value: Any, indent: int | None = None, **options: Any) -> str:
    """Write JSON as it is: Jinja's own filter would escape it for HTML."""
    return json.dumps(value, ensure_ascii=False, indent=indent, **options)


def _raise_exception(message: str) -> NoReturn:
    raise jinja2.TemplateError(message)


class _Stranger:
    """The process in which foreign templates render: started when first needed, then kept."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None
        self._lock = threading.Lock()

    def render(self, template: str, renderings: Renderings) -> list[str]:
        question = json.dumps({"template": template, "renderings": vars(renderings)})
        with self._lock:
            answer = self._ask(question)
        if "failed" in answer:
            raise TemplateFailed(answer["failed"])
        texts: list[str] = answer["texts"]
        return texts

    def _ask(self, question: str) -> dict[str, Any]:
        """Send one line and read one; a process that dies or stays silent has failed."""
        process = self._running()
        assert process.stdin is not None and process.stdout is not None
        alarm = threading.Timer(WALL_SECONDS, process.kill)
        alarm.start()
        try:
            process.stdin.write(question + "\n")
            process.stdin.flush()
            line = process.stdout.readline()
        except OSError:
            line = ""
        finally:
            alarm.cancel()
        if line.endswith("\n"):
            answer: dict[str, Any] = json.loads(line)
            return answer
        self.close()
        return {"failed": f"it takes more than {CPU_SECONDS:g} s, or too much memory"}

    def _running(self) -> subprocess.Popen[str]:
        if self._process is None or self._process.poll() is not None:
            self.close()
            kept = ("PATH", "PYTHONPATH", "PYTHONHOME", "LD_LIBRARY_PATH", "SYSTEMROOT")
            self._process = subprocess.Popen(
                # -P: this folder's own file names must not shadow the standard library's.
                [sys.executable, "-P", __file__],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                encoding="ascii",
                env={name: os.environ[name] for name in kept if name in os.environ},
            )
        return self._process

    def close(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None


_stranger = _Stranger()
atexit.register(_stranger.close)


def _answer_questions() -> None:
    """Be the process for foreign templates: limit ourselves, then answer line by line."""
    _limit_memory()
    for line in sys.stdin:
        question = json.loads(line)
        renderings = Renderings(**question["renderings"])
        _limit_time(CPU_SECONDS)
        try:
            texts = _render_here(question["template"], renderings)
            if sum(map(len, texts)) > ANSWER_CHARS:
                raise TemplateFailed(f"it writes more than {ANSWER_CHARS >> 20} million characters")
            answer = json.dumps({"texts": texts})
        except TemplateFailed as failure:
            answer = json.dumps({"failed": str(failure)[:500]})
        except MemoryError:
            answer = json.dumps({"failed": f"it needs more than {MEMORY_BYTES >> 20} MB"})
        _limit_time(0.0)
        print(answer, flush=True)


def _limit_memory() -> None:
    """Cap the address space, where the system can (Linux, macOS)."""
    try:
        import resource
    except ImportError:
        return
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _limit_time(seconds: float) -> None:
    """Let the system end this process after so many seconds of computing; 0 takes it back.

    Processor time, and not the clock's, so that a busy machine condemns no honest template. The
    signal keeps its default action: a handler in Python would wait for a long C call to return.
    """
    if hasattr(signal, "setitimer"):
        signal.setitimer(signal.ITIMER_PROF, seconds)


if __name__ == "__main__":
    _answer_questions()
