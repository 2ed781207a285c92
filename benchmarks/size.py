"""The size of the package: how much a reader has to know to understand it.

    python benchmarks/size.py [FOLDER…]       checkouts to measure (default: this one)

Counts lines, files, classes, private functions with a single caller, and the modules that a fresh
process loads for fine-tuning. These are indications, not limits.
"""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path


def pages(root: Path) -> dict[Path, ast.Module]:
    found = sorted((root / "src" / "groundup").rglob("*.py"))
    return {path: ast.parse(path.read_text(encoding="utf-8")) for path in found}


def lines(path: Path) -> int:
    return len(path.read_text(encoding="utf-8").splitlines())


def called_once(tree: ast.Module) -> int:
    """Private top-level functions whose name occurs only once in the module besides their own."""
    private = {
        node.name
        for node in tree.body
        if isinstance(node, ast.FunctionDef) and node.name.startswith("_")
    }
    used = Counter(node.id for node in ast.walk(tree) if isinstance(node, ast.Name))
    return sum(1 for name in private if used[name] == 1)


def loaded_for_fine_tuning(root: Path) -> list[Path]:
    """The modules that `import groundup.tune.sft` loads in a fresh process."""
    code = (
        "import sys, groundup.tune.sft\n"
        "for name, page in list(sys.modules.items()):\n"
        "    if name.split('.')[0] == 'groundup': print(page.__file__)"
    )
    environment = os.environ | {"PYTHONPATH": str(root / "src")}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    return [Path(line) for line in done.stdout.split()]


def measure(root: Path) -> dict[str, int]:
    trees = pages(root)
    nodes = [node for tree in trees.values() for node in ast.walk(tree)]
    classes = [node for node in nodes if isinstance(node, ast.ClassDef)]
    folders = Counter(path.parent for path in trees if path.name != "__init__.py")
    loaded = loaded_for_fine_tuning(root)
    return {
        "lines in src": sum(map(lines, trees)),
        "files": sum(path.name != "__init__.py" for path in trees),
        "files in the largest folder": max(folders.values()),
        "classes": len(classes),
        "functions and methods": sum(isinstance(node, ast.FunctionDef) for node in nodes),
        "private functions called once": sum(map(called_once, trees.values())),
        "modules loaded for fine-tuning": len(loaded),
        "their lines": sum(map(lines, loaded)),
    }


def main(roots: list[Path]) -> None:
    found = [measure(root) for root in roots]
    width = max(map(len, found[0]))
    for name in found[0]:
        print(name.ljust(width), *(f"{one[name]:>9,}" for one in found))


if __name__ == "__main__":
    here = Path(__file__).resolve().parents[1]
    main([Path(argument).resolve() for argument in sys.argv[1:]] or [here])
