"""Modules: parameters together with the computation that uses them.

A network is a tree of modules. Its leaves are layers with tensors; the others contain modules and
apply them in `forward`. Every operation on a whole network traverses the tree: listing the
parameters for an optimizer, saving them to a file, switching dropout off.

    class Net(Module):
        def __init__(self) -> None:
            self.hidden = Linear(2, 16)
            self.out = Linear(16, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.out(self.hidden(x).tanh())

An attribute that is a tensor requiring gradients is a parameter. An attribute that is a module, or
a list of modules, is a child. Names are dotted paths, "hidden.weight", "layers.0.bias", and equal
torch's for layers that torch has, so a `state_dict` fits both.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from textwrap import indent
from typing import Any, Self, TypeAlias

import numpy as np
from numpy.typing import DTypeLike

from groundup.errors import UserError
from groundup.maths.arrays import Array
from groundup.maths.tensor import Tensor, no_grad

Observer: TypeAlias = "Callable[[Module, Any, Any], None]"

observers: ContextVar[tuple[Observer, ...]] = ContextVar("observers", default=())
"""Functions called after every call of a module, with it, its first input and its output."""


class Module:
    """A part of a network: parameters, children, and `forward`, which subclasses define.

    A tensor is a parameter if it requires gradients and is a leaf when it is assigned; it stays one
    when frozen by `requires_grad_(False)`. Assigning a computed or constant tensor to its name ends
    this. Constants that belong to the state are registered by `register_buffer`. Tensors in lists
    are not found.
    """

    _parameters: set[str]
    _buffers: set[str]
    training: bool

    def __new__(cls, *_: Any, **__: Any) -> Self:
        # Not in __init__, so that subclasses need not call super().__init__().
        module = super().__new__(cls)
        vars(module).update(_parameters=set(), _buffers=set(), training=True)
        return module

    def __setattr__(self, name: str, value: Any) -> None:
        before = vars(self).get(name)
        super().__setattr__(name, value)
        if isinstance(value, Tensor):
            if value.requires_grad and value.is_leaf:
                self._parameters.add(name)
            elif value is not before:  # a frozen parameter stays a parameter
                self._parameters.discard(name)

    def forward(self, *inputs: Any, **options: Any) -> Any:
        """Compute the output from the inputs."""
        raise NotImplementedError(f"{type(self).__name__} has no forward; write one")

    def __call__(self, *inputs: Any, **options: Any) -> Any:
        output = self.forward(*inputs, **options)
        for observer in observers.get():
            observer(self, inputs[0] if inputs else None, output)
        return output

    def register_buffer(self, name: str, tensor: Tensor) -> None:
        """Register a constant that is saved and loaded with the parameters, but not trained.

        Raises `ValueError` for a tensor that requires gradients.
        """
        if tensor.requires_grad:
            raise ValueError(f"buffer {name} requires gradients; make it with requires_grad=False")
        self._buffers.add(name)
        setattr(self, name, tensor)

    # The tree

    def named_children(self) -> Iterator[tuple[str, Module]]:
        """Yield the direct children, including those in lists: ("layers.0", …), ("layers.1", …)."""
        for name, value in vars(self).items():
            if isinstance(value, Module):
                yield name, value
            elif isinstance(value, (list, tuple)):
                for i, item in enumerate(value):
                    if isinstance(item, Module):
                        yield f"{name}.{i}", item

    def named_modules(self, remove_duplicate: bool = True) -> Iterator[tuple[str, Module]]:
        """Yield this module as "" and all below it; shared ones once, or under every name."""
        seen: set[int] = set()

        def walk(prefix: str, module: Module) -> Iterator[tuple[str, Module]]:
            if remove_duplicate and id(module) in seen:
                return
            seen.add(id(module))
            yield prefix, module
            for name, child in module.named_children():
                yield from walk(_joined(prefix, name), child)

        return walk("", self)

    def modules(self) -> Iterator[Module]:
        """Yield this module and all below it."""
        return (module for _, module in self.named_modules())

    def apply(self, function: Callable[[Module], Any]) -> Self:
        """Call `function` on every module, children before their parents."""
        for _, child in self.named_children():
            child.apply(function)
        function(self)
        return self

    # The tensors

    def named_parameters(self, remove_duplicate: bool = True) -> Iterator[tuple[str, Tensor]]:
        """Yield every parameter with its dotted name; shared ones once, or under every name."""
        seen: set[int] = set()
        for prefix, module in self.named_modules(remove_duplicate):
            for name, tensor in module._own(module._parameters):
                if not (remove_duplicate and id(tensor) in seen):
                    seen.add(id(tensor))
                    yield _joined(prefix, name), tensor

    def parameters(self) -> Iterator[Tensor]:
        """Yield every parameter once, for an optimizer."""
        return (tensor for _, tensor in self.named_parameters())

    def named_buffers(self) -> Iterator[tuple[str, Tensor]]:
        """Yield every buffer with its dotted name."""
        for prefix, module in self.named_modules(remove_duplicate=False):
            for name, tensor in module._own(module._buffers):
                yield _joined(prefix, name), tensor

    def _own(self, names: Collection[str]) -> list[tuple[str, Tensor]]:
        """Return this module's direct attributes with one of these names that are tensors."""
        return [(n, v) for n, v in vars(self).items() if n in names and isinstance(v, Tensor)]

    def _state(self) -> dict[str, Tensor]:
        return dict([*self.named_parameters(remove_duplicate=False), *self.named_buffers()])

    # The state: reading, loading, saving

    def state_dict(self) -> dict[str, Array]:
        """Return copies of all parameters and buffers by their dotted names."""
        return {name: tensor.data.copy() for name, tensor in self._state().items()}

    def load_state_dict(self, state: Mapping[str, Array], strict: bool = True) -> None:
        """Copy numbers by name, in this module's dtypes; on an error nothing changes.

        Raises `UserError` for missing or unexpected names, unless `strict` is False, and for
        different shapes.
        """
        own = self._state()
        common = [name for name in own if name in state]
        problems = [
            f"{name} has shape {np.shape(state[name])} there and {own[name].shape} here"
            for name in common
            if np.shape(state[name]) != own[name].shape
        ]
        if strict:
            missing, unexpected = own.keys() - state.keys(), state.keys() - own.keys()
            problems += [f"missing: {', '.join(sorted(missing))}"] if missing else []
            problems += [f"unexpected: {', '.join(sorted(unexpected))}"] if unexpected else []
        if problems:
            raise UserError(
                f"this state does not fit {type(self).__name__}: {'; '.join(problems)}. Build the "
                "module with the sizes that the state was saved from"
                + (", or load what it has in common with strict=False" if strict else "")
            )
        with no_grad():
            for name in common:
                own[name].copy_(state[name])

    def save(self, path: str | Path) -> None:
        """Write the state to a safetensors file atomically."""
        from safetensors.numpy import save_file

        with atomic_write(path) as partial:
            save_file(self.state_dict(), partial)

    def load(self, path: str | Path, strict: bool = True) -> None:
        """Load the state from a safetensors file; errors are those of `load_state_dict`."""
        self.load_state_dict(read_safetensors(path), strict)

    # Training and evaluation

    def train(self, mode: bool = True) -> Self:
        """Switch to training mode, in which dropout is active."""
        for module in self.modules():
            module.training = mode
        return self

    def eval(self) -> Self:
        """Switch to evaluation mode, in which dropout does nothing."""
        return self.train(False)

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Clear the gradients of all parameters, or set them to zero."""
        for tensor in self.parameters():
            if tensor.grad is not None:
                tensor.grad = None if set_to_none else tensor.grad.new_zeros(tensor.shape)

    def to(self, dtype: DTypeLike) -> Self:
        """Convert floating-point parameters and buffers to another dtype.

        They are new tensors, so create the optimizer afterwards.
        """
        converted: dict[int, Tensor] = {}
        for module in self.modules():
            for name, old in module._own(module._parameters | module._buffers):
                if old.dtype.kind == "f":
                    new = Tensor(old.data.astype(dtype), requires_grad=old.requires_grad)
                    # Bypasses __setattr__, which would take a frozen parameter for a constant.
                    vars(module)[name] = converted.setdefault(id(old), new)
        return self

    def double(self) -> Self:
        """Convert to float64, like `to`."""
        return self.to(np.float64)

    def float(self) -> Self:
        """Convert to float32, like `to`."""
        return self.to(np.float32)

    # Representation

    def extra_repr(self) -> str:
        """Return the sizes and options that the repr shows in brackets."""
        return ""

    def __repr__(self) -> str:
        about = self.extra_repr()
        children = [f"({name}): {child!r}" for name, child in self.named_children()]
        if not children:
            return f"{type(self).__name__}({about})"
        lines = "\n".join([about, *children] if about else children)
        return f"{type(self).__name__}(\n{indent(lines, '  ')}\n)"


class Sequential(Module):
    """Modules in sequence: the output of each is the input of the next."""

    def __init__(self, *layers: Module) -> None:
        self._layers = list(layers)

    def forward(self, x: Any) -> Any:
        for layer in self._layers:
            x = layer(x)
        return x

    def append(self, layer: Module) -> Self:
        """Add a module at the end."""
        self._layers.append(layer)
        return self

    def named_children(self) -> Iterator[tuple[str, Module]]:
        """Yield the layers by their numbers: ("0", …), ("1", …)."""
        return ((str(i), layer) for i, layer in enumerate(self._layers))

    def __getitem__(self, index: int | slice) -> Module:
        chosen = self._layers[index]
        return Sequential(*chosen) if isinstance(chosen, list) else chosen

    def __len__(self) -> int:
        return len(self._layers)

    def __iter__(self) -> Iterator[Module]:
        return iter(self._layers)


@contextmanager
def atomic_write(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path whose file replaces `path` atomically at the end.

    Like `runs.files.atomic_write`, which steps 1 and 2 do not depend on.
    """
    path = Path(path).resolve()  # a link stays a link
    partial = path.with_name(f".{path.name}.partial")
    try:
        yield partial
        mask = os.umask(0)
        os.umask(mask)
        partial.chmod(0o666 & ~mask)  # safetensors creates files that other users cannot read
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def read_safetensors(path: str | Path) -> dict[str, Array]:
    """Return the arrays of a safetensors file by name; `UserError` if it cannot be read."""
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        return dict(load_file(path))
    # It raises the last two for a dtype that NumPy lacks, such as bfloat16.
    except (OSError, SafetensorError, KeyError, TypeError) as error:
        raise UserError(
            f"{path} cannot be read as a safetensors file ({error}); give one whole file of "
            "float32 or float64 weights"
        ) from None


def _joined(prefix: str, name: str) -> str:
    return f"{prefix}.{name}" if prefix else name
