"""Build the documentation site from the files of the project.

    make docs            # or: python docs/build.py [FOLDER]
    make docs-serve      # the same at http://localhost:8000, where search works too

Nothing is written twice: the chapters are README's sections, the lessons are those of
`groundup learn`, the reference comes from the commands and the docstrings, and the benchmarks' page
from the programs in `benchmarks/`. Everything becomes plain Markdown in `made`, which Zensical
turns into `site` without a network; then every link is checked. The Markdown does not depend on
Zensical.
"""

from __future__ import annotations

import ast
import contextlib
import html.parser
import inspect
import io
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

if TYPE_CHECKING:
    from groundup.learn.lesson import Lesson

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
FOLDERS = (
    *("maths", "nn", "runs", "report", "kernels", "train", "text", "world", "data", "adapters"),
    *("lm", "generation", "formats", "evals", "xray", "pretrain", "tune", "align", "serve"),
    *("studio", "experiments", "learn", "app"),
)


def main(folder: Path = HERE) -> None:
    """Build `made` and `site` in this folder; exit with code 1 if a link is broken."""
    made, site = folder / "made", folder / "site"
    if folder != HERE:
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()) and not (folder / "zensical.toml").is_file():
            raise SystemExit(f"{folder} holds other files; name an empty folder")
        shutil.copy(HERE / "zensical.toml", folder)
    shutil.rmtree(made, ignore_errors=True)
    shutil.rmtree(site, ignore_errors=True)
    write_pages(made)
    subprocess.run([sys.executable, "-m", "zensical", "build", "--strict"], check=True, cwd=folder)
    faults = [*broken_links(site), *foreign_files(site)]
    for fault in faults:
        print(fault, file=sys.stderr)
    if faults:
        raise SystemExit(1)
    print(f"docs: {len(list(site.rglob('*.html')))} pages at {site / 'index.html'}")
    print("Opened as files, the pages have no search; make docs-serve serves them with it.")


def write_pages(to: Path) -> None:
    """Write the Markdown of the whole site, and its styles, into the folder `to`."""
    for source in sorted([*(HERE / "pages").rglob("*.md"), *(HERE / "pages").rglob("*.css")]):
        _write(to / source.relative_to(HERE / "pages"), source.read_text(encoding="utf-8"))
    chapters(to / "guide")
    lessons(to / "lessons")
    commands(to / "reference" / "commands")
    python(to / "reference" / "python.md")
    code_map(to / "reference" / "map.md")
    benchmarks(to / "benchmarks.md")


# README's sections.


def chapters(to: Path) -> None:
    """One page for each `##` section of README, in order; its opening is the first page.

    Links within README become links between the pages.
    """
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    parts = re.split(r"^## (.+)$", text, flags=re.M)
    titled = list(zip(parts[1::2], parts[2::2], strict=True))
    home = {_anchor(title): f"{_anchor(title)}.md" for title, _ in titled}
    for title, body in titled:
        for heading in re.findall(r"^###+ (.+)$", body, flags=re.M):
            home.setdefault(_anchor(heading), f"{home[_anchor(title)]}#{_anchor(heading)}")
    opening = re.sub(r"^# .+\n", "# groundup\n", parts[0])
    _write(to / "index.md", _relinked(opening, home))
    for title, body in titled:
        body = re.sub(r"^#(##+) ", r"\1 ", body, flags=re.M)
        _write(to / home[_anchor(title)], f"# {title}\n{_relinked(body, home)}")


def _anchor(title: str) -> str:
    return re.sub(r"[^\w]+", "-", title.lower().replace("`", "")).strip("-")


def _relinked(text: str, home: dict[str, str]) -> str:
    def linked(found: re.Match[str]) -> str:
        words, target = found.groups()
        if target.startswith("#"):
            return f"[{words}]({home.get(target[1:], 'index.md')})"
        if target.startswith("docs/pages/"):
            return f"[{words}](../{target.removeprefix('docs/pages/')})"
        # A file of the repository is named, not linked: the site is self-contained.
        return found.group() if "://" in target else words

    return re.sub(r"(?<!!)\[([^\]]+)\]\(([^)\s]+)\)", linked, text)


# The lessons of `groundup learn`.


def lessons(to: Path) -> None:
    """The road, and a page for each exercise, with the answers collapsed."""
    from groundup.learn.exercise import STEPS, TITLES
    from groundup.learn.lesson import lesson_of
    from groundup.learn.road import of_step

    parts = [
        "# The lessons\n",
        "Each exercise is a small file of your own, which is graded on your machine and becomes "
        "part of the product when it passes. In the terminal:\n",
        "```sh\ngroundup learn\n```\n",
    ]
    for step, title in enumerate(TITLES[: len(STEPS)], start=1):
        parts += [
            f"## {step} {title}\n",
            "| | exercise | minutes | what it makes possible |",
            "|---|---|---|---|",
        ]
        for one in of_step(step):
            page = f"{one.number.replace('.', '-')}-{one.name}.md"
            parts.append(f"| {one.number} | [{one.title}]({page}) | {one.minutes} | {one.makes} |")
            _write(to / page, _lesson(one.number, lesson_of(one)))
        parts.append("")
    _write(to / "index.md", "\n".join(parts))


def _lesson(number: str, lesson: Lesson) -> str:
    question = lesson.question
    choices = "\n".join(
        f"- ({letter}) {choice}"
        for letter, choice in zip(question.letters, question.choices, strict=True)
    )
    hints = "\n".join(_folded(f"Hint {i}", hint) for i, hint in enumerate(lesson.hints, start=1))
    return "\n\n".join(
        [
            f"# {number} {lesson.title}",
            f"```sh\ngroundup learn {number}\n```",
            lesson.idea,
            f"## Predict\n\n{question.asked}\n\n{choices}",
            _folded("The answer", f"({question.answer}) {question.why}"),
            f"## Write\n\n{lesson.write}",
            hints,
            f"## Watch and read\n\n{lesson.watch}\n",
        ]
    )


def _folded(title: str, text: str) -> str:
    return f'<details markdown="1"><summary>{title}</summary>\n\n{text}\n\n</details>'


# The commands, as `--help` prints them.


def commands(to: Path) -> None:
    from cyclopts import App
    from rich.console import Console

    from groundup.app.cli import app

    def walk(app: App, words: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], App]]:
        for name in app:
            if name.startswith("-"):
                continue
            inner = app[name]
            if not inner.show:
                continue
            yield (*words, name), inner
            yield from walk(inner, (*words, name))

    index = ["# Commands\n", "The `--help` text of each command.\n"]
    for words, inner in walk(app, ()):
        # `console.capture()` would miss our help, which is written to the console's file. The width
        # fits a page.
        said = io.StringIO()
        console = Console(file=said, width=80, color_system=None, force_terminal=False)
        app.help_print(list(words), console=console)
        name = " ".join(words)
        page = "-".join(words) + ".md"
        index.append(f"- [`groundup {name}`]({page}): {_first_sentence(inner.help)}")
        _write(to / page, f"# groundup {name}\n\n```text\n{said.getvalue().strip()}\n```\n")
    _write(to / "index.md", "\n".join(index) + "\n")


# The public Python names, with their docstrings.


def python(to: Path) -> None:
    import groundup

    parts = ["# Python\n", f"{_first_paragraph(groundup.__doc__ or '')}\n"]
    for name in groundup.__all__:
        if name.startswith("__"):
            continue
        thing = getattr(groundup, name)
        if inspect.ismodule(thing):  # a folder that can be called
            thing = thing.__call__
        parts.append(f"## `groundup.{name}`\n")
        with contextlib.suppress(ValueError):
            parts.append(f"```python\n{name}{inspect.signature(thing)}\n```\n")
        parts.append(f"{inspect.cleandoc(thing.__doc__ or '')}\n")
    _write(to, "\n".join(parts))


def code_map(to: Path) -> None:
    """The folders of the package in import order, and the first sentence of each module."""
    package = ROOT / "src" / "groundup"
    parts = [
        "# The map\n",
        "The folders in their order: a module may import from the folders above its own.\n",
    ]
    for folder in FOLDERS:
        parts.append(f"## `{folder}`\n")
        for path in sorted((package / folder).rglob("*.py")):
            said = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
            if said and "learn/" not in str(path.parent.relative_to(package)):
                name = path.relative_to(package / folder).as_posix()
                parts.append(f"- `{name}`: {_first_sentence(said)}")
        parts.append("")
    _write(to, "\n".join(parts))


def _first_sentence(text: str) -> str:
    return " ".join(_first_paragraph(text).split())


def _first_paragraph(text: str) -> str:
    return inspect.cleandoc(text).split("\n\n")[0]


def benchmarks(to: Path) -> None:
    parts = [
        "# Benchmarks\n",
        "These programs measure speed and memory, as ratios of interleaved runs. Their results are "
        "in [Measured](measured.md).\n",
    ]
    for path in sorted((ROOT / "benchmarks").glob("*.py")):
        said = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
        said = re.sub(r"^(    .+(?:\n    .+)*)", r"```sh\n\1\n```", said, flags=re.M)
        said = re.sub(r"^    (?=python )", "", said, flags=re.M)
        parts.append(f"## `benchmarks/{path.name}`\n\n{said}\n")
    _write(to, "\n".join(parts))


# Checks of the finished site.


class _Links(html.parser.HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.targets: list[str] = []
        self.files: list[str] = []
        self.anchors: set[str] = {""}

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        found = {name: value for name, value in attributes if value}
        self.anchors |= {found[name] for name in ("id", "name") if name in found}
        if tag == "a" and "href" in found:
            self.targets.append(found["href"])
        if tag == "link" and found.get("rel") in ("stylesheet", "icon") and "href" in found:
            self.files.append(found["href"])
        if tag in ("script", "img") and "src" in found:
            self.files.append(found["src"])


def _links(page: Path) -> _Links:
    links = _Links()
    links.feed(page.read_text(encoding="utf-8"))
    return links


def broken_links(site: Path) -> Iterator[str]:
    """A sentence for each broken link within the site."""
    site = site.resolve()
    pages = {page: _links(page) for page in site.rglob("*.html")}
    for page, links in pages.items():
        if page.name == "404.html":  # its links are relative to the address that was not found
            continue
        for target in {*links.targets, *links.files}:
            parts = urlsplit(target)
            if parts.scheme or parts.netloc:
                continue
            to = page if not parts.path else (page.parent / unquote(parts.path)).resolve()
            to = to / "index.html" if to.is_dir() else to
            if not to.exists():
                yield f"{page.relative_to(site)}: {target} leads nowhere"
            elif to in pages and unquote(parts.fragment) not in pages[to].anchors:
                yield f"{page.relative_to(site)}: {target} names no part of that page"


def foreign_files(site: Path) -> Iterator[str]:
    """A sentence for each page that would load a file from another site."""
    for page in site.rglob("*.html"):
        for file in _links(page).files:
            if urlsplit(file).netloc:
                yield f"{page.relative_to(site)}: loads {file}"


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main(*(Path(word).resolve() for word in sys.argv[1:2]))
