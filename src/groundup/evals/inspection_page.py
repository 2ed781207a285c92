"""What `groundup data inspect` says, and its page; `inspection_terminal` says the same in lines.

Trained tokens and masked ones differ by colour, and by a line under them where there is none.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from groundup.data.inspection import Bin, Example, Inspection, histogram, quantiles, remarks
from groundup.report.page import page_environment, write_html
from groundup.text.token_view import Token

# By which a page is known again.
_GENERATOR = "groundup data inspect"
# So many tokens of an example from its beginning and from its end; conversations are shorter.
_FIRST, _LAST = 1500, 500
_REASONS = 500
# Of what is cut, so much that one sees what it is.
_CUT_SHOWN = 40


def write_inspection(path: Path, title: str, tokenizer: str, found: Inspection) -> None:
    """Write the page; a reader sees the old one or the whole new one."""
    write_html(path, inspection_html(title, tokenizer, found))


def is_inspection(path: Path) -> bool:
    """Whether a file is such a page, and may be written anew."""
    with open(path, "rb") as file:
        return f'<meta name="generator" content="{_GENERATOR}">'.encode() in file.read(4096)


def inspection_html(title: str, tokenizer: str, found: Inspection) -> str:
    """The page: whole in itself, and nothing of the data in it but as text."""
    bins = histogram(found)
    return (
        page_environment()
        .get_template("inspection.html.jinja")
        .render(
            generator=_GENERATOR,
            models=(),  # the shared style sizes tables of samples by them
            title=title,
            tokenizer=tokenizer,
            found=found,
            facts=facts(found),
            sources=[(one, per_cent(one.trained, one.tokens)) for one in found.sources],
            quantiles=quantiles(found) if bins else {},
            bins=[(bin_title(one), one) for one in bins],
            most=max((one.rows for one in bins), default=1),
            remarks=remarks(found),
            reasons=[
                (name, said[:_REASONS], len(said) - _REASONS) for name, said in reasons(found)
            ],
            examples=[
                (example_title(one), shortened(one.tokens, _FIRST, _LAST)) for one in found.examples
            ],
        )
    )


# What both say.


def facts(found: Inspection) -> list[tuple[str, str, str]]:
    """What there is, as a name, a number and what to know about it."""
    silent, cut = int(found.has_no_target.sum()), int(found.is_cut.sum())
    rows = [
        ("training rows", found.rows, ""),
        ("validation rows", found.heldout, "held out by a hash of what they say"),
        ("duplicates", found.duplicates, "left out"),
        ("bad lines", len(found.bad), "set aside"),
        ("refused rows", len(found.refused), "by the tokenizer or its template, set aside"),
        ("truncated rows", cut, f"{per_cent(cut, found.rows)}, cut at {found.context:,} tokens"),
        ("rows without answer", silent, "no trained token is left, set aside"),
        ("tokens", found.tokens, "in one pass over the training rows"),
        ("trained tokens", found.trained, f"{per_cent(found.trained, found.tokens)} of them"),
    ]
    always = {"training rows", "validation rows", "tokens", "trained tokens"}
    return [
        (name, f"{count:,}", note if count else "")
        for name, count, note in rows
        if count or name in always or name == "truncated rows"
    ]


def per_cent(part: int, whole: int) -> str:
    return f"{100 * part / whole:.1f} %" if whole else "–"


def shortened(tokens: Sequence[Token], first: int, last: int) -> list[Token | str]:
    """The tokens that fit the context, a long run of them without its middle, and some that do not.

    Texts between the tokens say what is left out, and where the context ends.
    """
    kept = [token for token in tokens if not token.is_cut]
    cut = [token for token in tokens if token.is_cut]
    shown: list[Token | str] = list(kept)
    if left_out := kept[first:-last]:
        shown[first:-last] = [f"… {_count(left_out):,} tokens …"]
    if cut:
        shown += [f"the context ends here, and {_count(cut):,} tokens are cut", *cut[:_CUT_SHOWN]]
    return shown


def bin_title(one: Bin) -> str:
    return f"{one.low:,} and more" if one.high is None else f"{one.low:,} – {one.high:,}"


def reasons(found: Inspection) -> list[tuple[str, list[str]]]:
    """Why lines and rows are set aside, where some are."""
    said = [
        ("Bad lines", [str(line) for line in found.bad]),
        ("Refused rows", [f"training row {place + 1}: {why}" for place, why in found.refused]),
    ]
    return [(heading, reasons) for heading, reasons in said if reasons]


def example_title(example: Example) -> str:
    trained = _count(token for token in example.tokens if token.is_trained)
    pieces = f", the first of {example.pieces} pieces" if example.pieces > 1 else ""
    return (
        f"Row {example.number} ({example.kind}, {example.source}): "
        f"{_count(example.tokens):,} tokens, {trained:,} of them trained{pieces}"
    )


def _count(tokens: Iterable[Token]) -> int:
    return sum(len(token.ids) for token in tokens)
