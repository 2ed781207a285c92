"""Export a model for other programs: a GGUF file for llama.cpp and Ollama, or a folder.

    groundup export runs/sft                     runs/sft-gguf: sft.q8_0.gguf, Modelfile, README.md
    groundup export pack:smollm2 --to hf         smollm2-hf, a Hugging Face folder

Our model folders are Hugging Face folders already; `hf` makes one from a GGUF file, or from a
folder with another dtype.
"""

from __future__ import annotations

import contextlib
import glob
from collections import Counter
from pathlib import Path
from typing import Any

import torch
import yaml
from gguf import Keys

from groundup.adapters.quantization import merge_and_dequantize
from groundup.errors import UserError
from groundup.formats.adapter import AdapterFolder, generation_config_of
from groundup.formats.card import as_merged
from groundup.formats.checks import Check, require_same
from groundup.formats.compare import compared_with_folder, compared_with_gguf
from groundup.formats.folder import CARD, StoredModel, save_model
from groundup.formats.gguf.model import GGUFModel, read_gguf
from groundup.formats.gguf.settings import context_of
from groundup.formats.gguf.write import GGUF_TYPES, save_gguf
from groundup.formats.load import open_model
from groundup.formats.locate import GGUF_SUFFIX, is_named, short_name
from groundup.formats.modelfile import modelfile, written
from groundup.formats.own_config import not_in_hugging_face
from groundup.formats.verify import opened_by_transformers
from groundup.runs.console import say
from groundup.runs.files import (
    is_unused,
    read_json_object,
    same_file,
    temporary_folder,
    write_text,
)

# The file that identifies an earlier export.
_HF_MARK = ".groundup-export"
_HF_TYPES = {"f32": torch.float32, "bf16": torch.bfloat16, "f16": torch.float16}


def export(
    source: Path | str,
    to: str = "gguf",
    type: str | None = None,
    out: Path | None = None,
    *,
    force: bool = False,
) -> Path:
    """Write the model of `source` (a folder, a .gguf file, `pack:NAME`) to the folder `out`.

    `type` is the storage type of the weights: f32, f16, bf16, and for GGUF q8_0 (the default
    there), q5_1, q5_0, q4_1, q4_0, and types that llama.cpp itself quantizes to, such as q4_k_m
    (extra `llama-cpp`). A Hugging Face folder by default keeps the model's own. Returns the folder,
    after reading it back and comparing it with the model. An earlier export in `out` is replaced;
    with `force` any files with the same names, but never the model itself.

    Raises `UserError` for a model that the format cannot express, and `CheckFailed` if the copy
    differs; the copy is then kept for inspection.
    """
    writers = {"gguf": (_to_gguf, GGUF_TYPES), "hf": (_to_hf, tuple(_HF_TYPES))}
    if to not in writers:
        raise UserError(f"--to={to} is not a format; choose one of {', '.join(writers)}")
    write, types = writers[to]
    if type is not None and type.lower() not in types:
        raise UserError(f"--type={type} is not written to {to}; choose one of {', '.join(types)}")
    found = open_model(source)
    name = short_name(source, found.path)
    parent = Path() if is_named(source) else found.path.parent
    out = parent / f"{name}-{to}" if out is None else out
    _refuse_other_files(out, found, to, force)
    checks = write(found, name, type and type.lower(), out)
    require_same(checks, out)
    return out


def _refuse_other_files(out: Path, found: StoredModel, to: str, force: bool) -> None:
    """Refuse an `out` folder with files other than those of an earlier export."""
    model = [found.path, found.path.parent]
    while isinstance(found, AdapterFolder):
        found = found.base
        model.append(found.path)
    if out.exists() and any(same_file(out, one) for one in model):
        raise UserError(f"--out={out} is the folder of the model itself; give another folder")
    if out.exists() and not out.is_dir():
        raise UserError(f"--out={out} is a file; give a folder")
    if is_unused(out):
        return
    if (out / "run.json").exists():
        raise UserError(f"--out={out} holds the files of a run; give another folder")
    if not force and (others := _foreign_files(out, to)):
        raise UserError(
            f"--out={out} holds {others}; give another folder, or pass --force to write into it"
        )


def _foreign_files(out: Path, to: str) -> str:
    """Describe the files that no earlier export wrote; "" if there are none."""
    if to == "hf":
        return "" if (out / _HF_MARK).is_file() else "other files and no earlier export"
    earlier = _earlier_export(out)
    if earlier is None:
        return "other files and no earlier export"
    file, edited = earlier
    if edited:
        return "a Modelfile that was edited since it was exported"
    strange = sorted(path.name for path in out.glob(f"*{GGUF_SUFFIX}") if path.name != file)
    return f"{strange[0]}, which the earlier export did not write" if strange else ""


def _earlier_export(out: Path) -> tuple[str, bool] | None:
    """The GGUF file of an earlier export, and whether its Modelfile was edited; None if none."""
    try:
        return written((out / "Modelfile").read_text(encoding="utf-8", errors="replace"))
    except OSError:
        return None


def _to_gguf(found: StoredModel, name: str, type: str | None, out: Path) -> list[Check]:
    type = type or "q8_0"
    path, tokenizer = found.path, found.tokenizer
    model = merge_and_dequantize(found.model(), torch.float32)
    file = f"{name}.{type}{GGUF_SUFFIX}"
    context, whole = context_of(model.config), model.config.max_position_embeddings
    if context < whole:
        say(
            "llama.cpp has no attention window for this family, so the file's context is limited "
            f"to the window: {context:,} tokens of {whole:,}"
        )
    sampling, license = _sampling(found), _license(found)
    said = modelfile(file, tokenizer, context=context, sampling=sampling)
    earlier = _earlier_export(out)
    stale = [] if earlier is None else [earlier[0]]
    if stale and stale != [file] and (out / stale[0]).exists():
        say(
            f"{out / stale[0]} is replaced: a folder holds one model; give another --out to keep "
            "both"
        )
    with temporary_folder(
        out, first="Modelfile", replaces=[glob.escape(one) for one in stale]
    ) as aside:
        save_gguf(
            aside / file, model, tokenizer, type, name=name, license=license, sampling=sampling
        )
        write_text(aside / "Modelfile", said)
        if (path / CARD).is_file():
            write_text(aside / CARD, _card(found, name))
    say(f"{out / file}: {(out / file).stat().st_size / 1e6:.1f} MB")
    _say_other_types(read_gguf(out / file), type)
    return compared_with_gguf(model, tokenizer, out / file, type)


def _say_other_types(found: GGUFModel, type: str) -> None:
    """Report the matrices with another type, because their rows do not fill whole blocks."""
    if not type.startswith("q"):
        return
    block = 256 if "_k" in type else 32
    tensors = found.file.tensors.values()
    torn = [one for one in tensors if one.shape[-1] % block and one.type.name != "F32"]
    if torn:
        widths = " and ".join(map(str, sorted({one.shape[-1] for one in torn})))
        kinds = Counter(one.type.name for one in torn).most_common()
        stored = ", ".join(f"{n} {'are' if n > 1 else 'is'} {kind}" for kind, n in kinds)
        say(
            f"rows of {widths} numbers do not fill blocks of {block}, so of {len(tensors)} "
            f"tensors {stored} instead of {type.upper()}"
        )


def _to_hf(found: StoredModel, name: str, type: str | None, out: Path) -> list[Check]:
    if (why := not_in_hugging_face(found.config)) is not None:
        raise UserError(
            f"{why}, so {found.path} cannot be exported as one of its models; use the folder "
            "with groundup as it is"
        )
    model, tokenizer = merge_and_dequantize(found.model(), torch.float32), found.tokenizer
    dtype = next(model.parameters()).dtype if type is None else _HF_TYPES[type]
    card, sampling = _card(found, name), _sampling(found)
    # First, so that the same command finds its own folder when it was killed.
    out.mkdir(parents=True, exist_ok=True)
    write_text(out / _HF_MARK, f"Made of {name} by groundup export, which may overwrite it.\n")
    save_model(out, model, tokenizer, card=card, dtype=dtype, sampling=sampling)
    # Compared even if transformers cannot open the files.
    return [*compared_with_folder(model, tokenizer, out, dtype), opened_by_transformers(out)]


def _sampling(found: StoredModel) -> dict[str, Any] | None:
    """The model's sampling settings; None if it has none."""
    file = generation_config_of(found.path)
    return None if file is None else read_json_object(file)


def _card(found: StoredModel, name: str) -> str:
    """The model's own card, or one from a GGUF file's metadata."""
    if (found.path / CARD).is_file():
        card = (found.path / CARD).read_text(encoding="utf-8", errors="replace")
        return as_merged(card) if isinstance(found, AdapterFolder) else card
    front: dict[str, Any] = {"library_name": "transformers", "pipeline_tag": "text-generation"}
    if (license := _license(found)) is not None:
        front["license"] = license
    return (
        f"---\n{yaml.safe_dump(front, sort_keys=False)}---\n\n# {name}\n\n"
        f"Made from {found.path.name} by `groundup export`. See its source for who trained it, on "
        "what, and under which terms it may be used.\n"
    )


def _license(found: StoredModel) -> str | None:
    """The license named by the model's card or file."""
    license: Any = None
    card = found.path / CARD
    if isinstance(found, GGUFModel):
        license = found.file.metadata.get(Keys.General.LICENSE)
    elif card.is_file():
        pieces = card.read_text(encoding="utf-8", errors="replace").split("---\n", 2)
        # For cards with no or broken front matter; an invalid date raises ValueError, deep nesting
        # RecursionError.
        with contextlib.suppress(yaml.YAMLError, ValueError, RecursionError):
            front = yaml.safe_load(pieces[1]) if len(pieces) == 3 and not pieces[0] else None
            license = front.get("license") if isinstance(front, dict) else None
    return license if isinstance(license, str) else None
