"""llama.cpp as the oracle for GGUF files: its logits and token ids."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import numpy.typing as npt
from llama_cpp_py_sync._cffi_bindings import get_ffi, get_lib

_F32 = 0  # enum ggml_type


class LlamaCpp:
    """A model with keys and values in float32, so that only weights are rounded."""

    def __init__(self, path: Path, vocabulary_only: bool = False) -> None:
        self.lib, self.ffi = get_lib(), get_ffi()
        self.lib.llama_log_set(_silent(), self.ffi.NULL)
        self.lib.llama_backend_init()
        params = self.lib.llama_model_default_params()
        params.n_gpu_layers, params.vocab_only = 0, vocabulary_only
        self.model = self.lib.llama_model_load_from_file(str(path).encode(), params)
        assert self.model != self.ffi.NULL, f"llama.cpp does not load {path}"
        self.vocab = self.lib.llama_model_get_vocab(self.model)

    def logits(self, ids: Sequence[int]) -> npt.NDArray[np.float32]:
        """The logits after each of `ids`, of shape (ids, vocabulary)."""
        params = self.lib.llama_context_default_params()
        params.n_ctx = params.n_batch = params.n_ubatch = max(64, len(ids))
        params.type_k = params.type_v = _F32
        params.flash_attn_type = 0
        params.n_threads = params.n_threads_batch = 1
        context = self.lib.llama_init_from_model(self.model, params)
        assert context != self.ffi.NULL
        batch = self.lib.llama_batch_init(len(ids), 0, 1)
        try:
            batch.n_tokens = len(ids)
            for place, id in enumerate(ids):
                batch.token[place], batch.pos[place] = id, place
                batch.n_seq_id[place], batch.seq_id[place][0] = 1, 0
                batch.logits[place] = 1
            assert self.lib.llama_decode(context, batch) == 0
            size = self.lib.llama_vocab_n_tokens(self.vocab)
            rows = [self.lib.llama_get_logits_ith(context, place) for place in range(len(ids))]
            copied = [np.frombuffer(self.ffi.buffer(row, 4 * size), np.float32) for row in rows]
            return np.stack(copied)
        finally:
            self.lib.llama_batch_free(batch)
            self.lib.llama_free(context)

    def tokenize(
        self, text: str, *, add_special: bool = False, parse_special: bool = False
    ) -> list[int]:
        data = text.encode()
        room = len(data) + 16
        ids = self.ffi.new(f"llama_token[{room}]")
        count = self.lib.llama_tokenize(
            self.vocab, data, len(data), ids, room, add_special, parse_special
        )
        assert count >= 0
        return [ids[place] for place in range(count)]

    def stops_at(self, id: int) -> bool:
        return bool(self.lib.llama_vocab_is_eog(self.vocab, id))

    def sampling(self, name: str) -> str | None:
        """The file's value of a sampling setting, by llama.cpp's name."""
        named = getattr(self.lib, f"LLAMA_MODEL_META_KEY_SAMPLING_{name}")
        text, room = self.ffi.new("char[64]"), 64
        key = self.lib.llama_model_meta_key_str(named)
        if self.lib.llama_model_meta_val_str(self.model, key, text, room) < 0:
            return None
        return bytes(self.ffi.string(text)).decode()

    def close(self) -> None:
        self.lib.llama_model_free(self.model)


@contextmanager
def llama_cpp(path: Path, vocabulary_only: bool = False) -> Iterator[LlamaCpp]:
    model = LlamaCpp(path, vocabulary_only)
    try:
        yield model
    finally:
        model.close()


_kept = []  # C calls it as long as the process lives


def _silent() -> object:
    if not _kept:
        signature = "void(enum ggml_log_level, const char *, void *)"
        _kept.append(get_ffi().callback(signature, lambda level, text, data: None))
    return _kept[0]
