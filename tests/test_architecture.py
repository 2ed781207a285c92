"""The house rules, checked in the syntax trees: import order, cycles and unused code."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

import groundup
from preloaded import Process

ROOT = Path(groundup.__file__).parent
FILES = sorted(ROOT.rglob("*.py"))
# A module may import from its own folder and from those before it.
ORDER = [
    *("maths", "nn", "runs", "report", "kernels"),
    *("train", "text", "world", "data", "adapters", "lm"),
    *("generation", "formats", "evals", "xray", "pretrain", "tune", "align"),
    *("serve", "studio", "experiments", "learn", "app"),
]
# Modules of ours that fine-tuning loads at most, folders included, beside those of `kernels`, which
# only make it faster. It was 60 until shapes came that Hugging Face has no class for: they brought
# formats.config_reader, formats.own_config and lm.sizes. The code of runs.folder became three
# pages, with runs.content and runs.request.
LOADED_BY_SFT = 65
COMMANDS = (
    "data",
    "journeys",
    "label",
    "learn",
    "machine",
    "models",
    "scaling",
    "serve",
    "stages",
    "studio",
    "xray",
)
# Oracles of the tests; the package does not depend on them.
ORACLES = {"transformers", "peft", "trl", "bitsandbytes"}
# Modules that execute the contents of the files they read.
PICKLES = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "marshal", "shelve"}


@cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


@cache
def imported(path: Path, root: Path = ROOT) -> list[str]:
    """Every module that a file imports, at any depth, with relative names made absolute."""
    package = ["groundup", *path.relative_to(root).with_suffix("").parts[:-1]]
    found = list[str]()
    for node in _executed(parsed(path)):
        if isinstance(node, ast.Import):
            found += (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            # `from groundup import text` and `from . import text` name a module as well.
            found += (f"{module}.{alias.name}" for alias in node.names)
    return found


def _executed(tree: ast.AST) -> Iterator[ast.stmt]:
    """Every statement except those that only a type checker reads."""
    open_ = [tree]
    while open_:
        for node in ast.iter_child_nodes(open_.pop()):
            if isinstance(node, ast.If) and "TYPE_CHECKING" in _names(node.test):
                yield from node.orelse
                open_ += node.orelse
            elif not isinstance(node, ast.expr):  # an expression has no statements inside
                if isinstance(node, ast.stmt):
                    yield node
                open_.append(node)


def _names(tree: ast.AST) -> set[str]:
    """The names and attributes in an expression."""
    nodes = list(ast.walk(tree))
    names = {node.id for node in nodes if isinstance(node, ast.Name)}
    return names | {node.attr for node in nodes if isinstance(node, ast.Attribute)}


def dotted(function: ast.expr) -> str:
    """`torch.load`; of what is no name the last attributes, such as `.load`."""
    if isinstance(function, ast.Attribute):
        return f"{dotted(function.value)}.{function.attr}"
    return function.id if isinstance(function, ast.Name) else ""


def folder_of(module: str) -> str | None:
    parts = module.split(".")
    return parts[1] if parts[0] == "groundup" and len(parts) > 1 else None


def forbidden(path: Path, root: Path = ROOT) -> list[str]:
    """The imports of a file that violate the order."""
    parts = path.relative_to(root).parts
    if len(parts) == 1:  # the pages at the top may use everything
        return []
    own = ORDER.index(parts[0])
    found = []
    for module in imported(path, root):
        folder = folder_of(module)
        if module.split(".")[0] != "groundup" or folder in {"errors", "deprecated", "__version__"}:
            continue
        if parts[0] == "app" and module == "groundup":  # the command line says its version
            continue
        if folder not in ORDER or ORDER.index(folder) > own:
            found.append(module)
    return found


def module_of(path: Path, root: Path = ROOT) -> str:
    parts = ["groundup", *path.relative_to(root).with_suffix("").parts]
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def graph(root: Path = ROOT) -> dict[str, set[str]]:
    """The modules that each module imports; imports for type checkers do not count."""
    pages = {module_of(path, root): path for path in root.rglob("*.py")}
    found: dict[str, set[str]] = {}
    for module, path in pages.items():
        names = imported(path, root)
        # A name is a module's own or a module itself.
        homes = (name if name in pages else name.rpartition(".")[0] for name in names)
        found[module] = {home for home in homes if home in pages and home != module}
    return found


def circles(imports: dict[str, set[str]]) -> list[set[str]]:
    """Sets of modules that import each other."""

    def reached(start: str) -> set[str]:
        seen, open_ = set[str](), [start]
        while open_:
            new = imports[open_.pop()] - seen
            seen |= new
            open_ += new
        return seen

    everything = {module: reached(module) for module in imports}
    found: list[set[str]] = []
    for module, reach in everything.items():
        if module in reach and not any(module in one for one in found):
            found.append({other for other in reach if module in everything[other]})
    return found


def where(path: Path) -> str:
    return str(path.relative_to(ROOT))


def test_every_folder_is_in_the_order() -> None:
    folders = {path.name for path in ROOT.iterdir() if (path / "__init__.py").exists()}
    assert folders == set(ORDER)


def test_imports_run_backwards() -> None:
    found = {where(path): forbidden(path) for path in FILES}
    assert {page: modules for page, modules in found.items() if modules} == {}


def test_the_rule_finds_every_kind_of_import(tmp_path: Path) -> None:
    (tmp_path / "text").mkdir()
    page = tmp_path / "text" / "page.py"
    page.write_text(
        "import groundup.lm.model\n"
        "from groundup.formats import folder\n"
        "from ..align.dpo import run\n"
        "from .. import evals\n"
        "from . import corpus\n"
        "from groundup import load\n"
        "from groundup.train.batch import Batch\n"
        "from groundup.errors import UserError\n"
        "def late():\n    from groundup.pretrain.stage import run\n"
    )
    assert forbidden(page, tmp_path) == [
        "groundup.lm.model",
        "groundup.formats.folder",
        "groundup.align.dpo.run",
        "groundup.evals",
        "groundup.load",
        "groundup.pretrain.stage.run",
    ]


def test_no_modules_import_each_other_in_a_circle() -> None:
    assert circles(graph()) == []


def test_circles_through_function_imports_are_found(tmp_path: Path) -> None:
    root = tmp_path / "groundup"
    (root / "text").mkdir(parents=True)
    (root / "text" / "one.py").write_text("from groundup.text.two import a\n")
    (root / "text" / "two.py").write_text("def late():\n    from groundup.text import three\n")
    (root / "text" / "three.py").write_text(
        "if TYPE_CHECKING:\n    from groundup.text import two\nimport groundup.text.one\n"
    )
    assert circles(graph(root)) == [{f"groundup.text.{page}" for page in ("one", "two", "three")}]


def test_folders_are_small() -> None:
    for folder in (path.parent for path in ROOT.rglob("__init__.py")):
        pages = [path for path in folder.glob("*.py") if path.name != "__init__.py"]
        assert len(pages) <= (25 if folder.name == "maths" else 20), folder


def test_fine_tuning_imports_only_what_it_needs() -> None:
    code = (
        "import sys, groundup.tune.sft\n"
        "print(*(name for name in sys.modules if f'{name}.'.startswith('groundup.')))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    names = [name.removeprefix("groundup.") for name in done.stdout.split()]
    kernels = [name for name in names if f"{name}.".startswith("kernels.")]
    assert len(names) - len(kernels) <= LOADED_BY_SFT, sorted(names)
    assert len(kernels) <= 11, kernels  # a file each, next to the plain operations
    unneeded = ("world", "evals", "experiments", "data.build", "data.leaks", "formats.gguf")
    assert not [name for name in names if name.startswith(unneeded)]
    packs = {name for name in names if name.startswith("data.packs.")}
    assert packs <= {"data.packs.manifest", "data.packs.fetch"}


def test_no_module_compares_stage_names() -> None:
    """Properties of a stage are traits of its config or columns of the stage table."""
    from groundup.app.stages import STAGES

    names = {stage.name for stage in STAGES.values() if stage.trains}
    for path in FILES:
        for node in ast.walk(parsed(path)):
            if isinstance(node, ast.Compare):
                sides = [node.left, *node.comparators]
                found = {one.value for one in sides if isinstance(one, ast.Constant)}
                assert not found & names, f"{where(path)}:{node.lineno}"


def trains(path: Path, root: Path = ROOT) -> bool:
    """Whether a file computes gradients of a loss with torch and takes optimizer steps."""
    names = [f"{name}." for name in imported(path, root)]
    if not any(name.startswith(("torch.", "groundup.train.")) for name in names):
        return False
    calls = (node.func for node in ast.walk(parsed(path)) if isinstance(node, ast.Call))
    called = {one.attr for one in calls if isinstance(one, ast.Attribute)}
    return "backward" in called and bool(called & {"step", "step_at_rest"})


def test_there_is_one_training_loop() -> None:
    assert {where(path) for path in FILES if trains(path)} == {
        "train/loop.py",
        # These take steps of the loop's optimizer to time them; their models are discarded.
        "train/pace.py",
        "pretrain/probe.py",
        # Three steps, by which a reader's own AdamW is seen to act.
        "learn/networks/optimizers/seam.py",
    }


def test_a_second_training_loop_is_found(tmp_path: Path) -> None:
    (tmp_path / "align").mkdir()
    page = tmp_path / "align" / "page.py"
    page.write_text(
        "from groundup.train.optim import Optimizer\n"
        "for batch in stream:\n    loss(batch).backward()\n    optimizer.step()\n"
    )
    assert trains(page, tmp_path)


@pytest.mark.parametrize("folder", ["maths", "nn"])
def test_steps_one_and_two_do_not_import_torch(folder: str) -> None:
    for path in (ROOT / folder).rglob("*.py"):
        assert not [name for name in imported(path) if name.split(".")[0] == "torch"], path


def unsafe(path: Path, root: Path = ROOT) -> list[str]:
    """Uses of oracles, pickle, a shell, or execution of data in a file."""
    place = path.relative_to(root)
    names = set(imported(path, root))
    packages = {name.split(".")[0] for name in names}
    found = [*sorted(packages & PICKLES), *sorted(names & {"torch.load", "torch.save"})]
    if place != Path("formats/verify.py"):
        found += sorted(packages & ORACLES)
    found += sorted(packages & {"runpy"})
    running = {"compile", "eval", "exec"}  # under any alias
    if place == Path("align/rewards/sandboxed/unit_test.py"):
        running -= {"compile", "exec"}  # there what a model wrote is run, behind walls
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
            found += running & {node.id}
        if not isinstance(node, ast.Call):
            continue
        called = dotted(node.func)
        given = {keyword.arg: keyword.value for keyword in node.keywords}
        if called in {"torch.load", "torch.save", "os.system"}:
            found.append(called)
        if called.endswith(("read_pickle", "to_pickle")):
            found.append(called)
        if called.startswith(("subprocess.", "os.")) and "shell" in given:
            found.append("shell")
        for name, safe in (("allow_pickle", False), ("weights_only", True)):
            if name in given and ast.unparse(given[name]) != str(safe):
                found.append(name)
    return found


def test_no_oracle_no_pickle_no_shell() -> None:
    found = {where(path): unsafe(path) for path in FILES}
    assert {page: what for page, what in found.items() if what} == {}


def test_every_way_to_execute_data_is_found(tmp_path: Path) -> None:
    lines = {
        "import joblib": ["joblib"],
        "def late():\n    from marshal import loads": ["marshal"],
        "import shelve as kept": ["shelve"],
        "import peft.tuners": ["peft"],
        "from torch import Tensor, load": ["torch.load"],
        "import runpy": ["runpy"],
        "torch.save(x, 'y')": ["torch.save"],
        "np.load('x', allow_pickle=True)": ["allow_pickle"],
        "np.load('x', allow_pickle=known)": ["allow_pickle"],
        "open_it('x', weights_only=False)": ["weights_only"],
        "pandas.read_pickle('x')": ["pandas.read_pickle"],
        "eval('x')": ["eval"],
        "run = exec": ["exec"],
        "parse, compile = compile, 2": ["compile"],
        "subprocess.run('x', shell=True)": ["shell"],
        "np.load('x', allow_pickle=False); model.eval(); from torch import Tensor": [],
        "re.compile('x'); settings.compile = compile = True": [],
    }
    for number, (line, what) in enumerate(lines.items()):
        page = tmp_path / f"page{number}.py"
        page.write_text(line)
        assert unsafe(page, tmp_path) == what, line


def test_no_vague_names() -> None:
    vague = {"utils", "util", "helpers", "common", "manager", "handler", "misc"}
    for path in FILES:
        stem = path.stem
        assert stem not in vague and not stem.startswith("base_") and not stem.endswith("_v2"), path


def test_settings_recipes_and_commands_load_without_torch() -> None:
    configs = [
        ".".join(("groundup", *p.relative_to(ROOT).with_suffix("").parts))
        for p in FILES
        if p.name == "config.py" and "formats" not in p.parts
    ]
    modules = [
        *configs,
        "groundup",
        "groundup.app.cli",
        *(f"groundup.app.commands.{page}" for page in COMMANDS),
        "groundup.app.recipe",
        "groundup.app.stages",
        "groundup.text.bpe",
        "groundup.data.packs.fetch",
        "groundup.data.records",
    ]
    code = "\n".join(
        [
            "import importlib, sys",
            f"for name in {modules}:",
            "    importlib.import_module(name)",
            "    assert 'torch' not in sys.modules, name",
        ]
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_modules_that_read_files_do_not_import_locks() -> None:
    code = (
        "import sys, groundup.runs.folder, groundup.data.dataset; print('filelock' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("False\n", "")


def test_every_module_can_be_imported_without_unix_modules() -> None:
    """On Windows none of these modules exists; optional libraries are imported where needed."""
    extra = ("__main__", "harness", "harness_run")  # the latter need lm-eval
    modules = [module_of(path) for path in FILES if path.stem not in extra]
    code = "\n".join(
        [
            "import importlib, sys, filelock, numpy, psutil, torch, matplotlib.figure, cyclopts",
            "import torch.distributed",
            "for name in [name for name in sys.modules if f'{name}.'.startswith('groundup.')]:",
            "    del sys.modules[name]  # preloaded",
            "for name in ('fcntl', 'resource', 'termios', 'pwd', 'grp', 'readline', 'tty', 'pty'):",
            "    sys.modules[name] = None",
            f"for name in {modules}:",
            "    importlib.import_module(name)",
        ]
    )
    status, said = Process([sys.executable, "-c", code]).communicate()
    assert status == 0, said
