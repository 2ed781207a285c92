"""Names of earlier releases: they work for one release more, and a warning says the new name.

`MODULES` says for each page that is gone where its contents stand today, `NAMES` what was renamed.
A finder at the very end of Python's import path answers for those pages alone, so a module that
exists costs nothing. Delete an entry, or this whole page, when its release is over.
"""

from __future__ import annotations

import importlib
import sys
import warnings
from importlib.machinery import ModuleSpec
from types import ModuleType

# Read before every command, so without what loading `typing` costs.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any


# A page that is gone, without `groundup.`: the pages that hold its contents now.
MODULES: dict[str, tuple[str, ...]] = {
    "adapters.adapter_files": ("formats.peft",),
    "adapters.peft_config": ("formats.peft_config",),
    "chat": ("app.chat",),
    "cli": ("app.cli",),
    "commands": ("app.commands",),
    "completions": ("app.completions",),
    "conversation": ("app.conversation",),
    "evals.aims": ("evals.world.aims",),
    "evals.checks": ("formats.checks",),
    "evals.compared": ("evals.stages.measures", "evals.measure", "report.table", "report.claim"),
    "evals.copies": ("formats.copies",),
    "evals.core_page": ("evals.core",),
    "evals.familiar": ("evals.contamination",),
    "evals.findings": ("evals.stages.claims", "report.claim"),
    "evals.history": ("report.history",),
    "evals.inspection_page": ("data.inspection_report",),
    "evals.inspection_terminal": ("data.inspection_report",),
    "evals.material": ("evals.stages.material",),
    "evals.measured": ("report.estimate",),
    "evals.opening": ("evals.stages.opening", "report.page"),
    "evals.pages": ("report.page",),
    "evals.plots": ("report.plots", "report.figure"),
    "evals.report": ("evals.stages.report",),
    "evals.report_page": ("evals.stages.page",),
    "evals.run": ("evals.stages.report", "evals.measure"),
    "evals.score": ("lm.score",),
    "evals.stories": ("evals.world.stories",),
    "evals.tables": ("report.table",),
    "evals.tuning": (
        "evals.suites",
        "evals.domain.measures",
        "evals.domain.material",
        "evals.measure",
    ),
    "evals.tuning_facts": ("evals.domain.costs",),
    "evals.tuning_material": ("evals.domain.material",),
    "evals.tuning_measures": ("evals.domain.measures", "evals.measure"),
    "evals.tuning_page": ("evals.domain.page", "evals.domain.report"),
    "evals.tuning_plots": ("evals.domain.page",),
    "evals.tuning_verdicts": ("evals.domain.claims", "report.claim"),
    "evals.verify": ("formats.verify",),
    "experiments.initialisation": ("experiments.initialization",),
    "experiments.outcome": ("report.outcome", "report.table", "report.figure"),
    "experiments.perceptron_plots": ("experiments.plane", "experiments.reading"),
    "experiments.plots": ("report.plots", "report.figure"),
    "experiments.points": ("experiments.plane",),
    "experiments.quantisation": ("experiments.quantization",),
    "experiments.quantisation_report": ("experiments.quantization",),
    "experiments.sweep": ("experiments.optimizer_race",),
    "export": ("formats.export",),
    "growing": ("runs.resumable_jsonl",),
    "inspection": ("app.inspection",),
    "lm.adapted": ("formats.adapted",),
    "lm.card": ("formats.card",),
    "lm.early_stopping": ("train.early_stopping",),
    "lm.engine": ("generation.engine",),
    "lm.four_bit": ("formats.bitsandbytes",),
    "lm.generate": ("generation.generate", "generation.request", "generation.sampling"),
    "lm.gguf": ("formats.gguf.model",),
    "lm.gguf_blocks": ("formats.gguf.blocks",),
    "lm.gguf_config": ("formats.gguf.config",),
    "lm.gguf_rope": ("formats.gguf.rope",),
    "lm.gguf_settings": ("formats.gguf.settings",),
    "lm.gguf_writing": ("formats.gguf.writing",),
    "lm.hub": ("formats.folder",),
    "lm.modelfile": ("formats.modelfile",),
    "lm.reading": ("generation.prefill", "lm.model"),
    "lm.request": ("generation.request",),
    "lm.sample": ("generation.sampling",),
    "lm.sources": ("formats.locate",),
    "lm.training": ("train.stage",),
    "lm.tuning": ("tune.prepare",),
    "lm.weights": ("formats.weights",),
    "plan": ("app.plan",),
    "process": ("app.process",),
    "recipe": ("app.recipe",),
    "recipes": ("app.recipes",),
    "stages": ("app.stages",),
    "terminal": ("app.terminal",),
    "text.build": ("data.build",),
    "text.chitchat": ("data.packs.chitchat",),
    "text.config": ("data.config",),
    "text.conversations": ("data.packs.conversations",),
    "text.corpus": ("data.corpus",),
    "text.csv_files": ("data.csv_files",),
    "text.fields": ("data.fields",),
    "text.gguf_cursor": ("formats.gguf.cursor",),
    "text.gguf_header": ("formats.gguf.header",),
    "text.gguf_tokenizer": ("formats.gguf.tokenizer",),
    "text.gguf_tokenizer_writing": ("formats.gguf.tokenizer_writing",),
    "text.gguf_types": ("formats.gguf.types",),
    "text.hub_data": ("data.hub",),
    "text.inspection": ("data.inspection",),
    "text.kinds": ("text.rows",),
    "text.layouts": ("data.layouts",),
    "text.leaks": ("data.leaks",),
    "text.manifest": ("data.packs.manifest", "text.rows"),
    "text.marked": ("text.example",),
    "text.newcomers": ("data.newcomers",),
    "text.own_data": ("data.dataset",),
    "text.own_sources": ("data.locations",),
    "text.packs": ("data.packs.fetch", "data.packs.manifest", "text.rows"),
    "text.pretokenizers": ("formats.gguf.pretokenizers",),
    "text.questions": ("data.packs.questions",),
    "text.records": ("data.records", "text.rows"),
    "text.refusals": ("data.packs.refusals",),
    "text.row_files": ("data.row_files",),
    "text.samples": ("data.samples",),
    "text.shown": ("text.token_view",),
    "text.sources": ("data.packs.sources",),
    "text.splitting": ("data.split",),
    "text.synthetic": ("data.synthetic",),
    "text.vocabulary": ("data.tokenizer",),
    "text.world": ("world",),
    "text.world.answers": ("world.answers",),
    "text.world.conduct": ("world.conduct",),
    "text.world.facts": ("world.facts",),
    "text.world.gold": ("world.gold",),
    "text.world.grammar": ("world.grammar",),
    "text.world.kinds": ("world.kinds",),
    "text.world.lives": ("world.lives",),
    "text.world.pack": ("world.pack",),
    "text.world.plot": ("world.plot",),
    "text.world.questions": ("world.questions",),
    "text.world.reading": ("world.reading",),
    "text.world.stories": ("world.stories",),
    "text.world.tables": ("world.tables",),
    "train.progress": ("runs.console",),
    "train.ranks": ("runs.ranks",),
    "train.run": ("runs.folder",),
}
# An old name of a public function or class: its name now.
NAMES: dict[str, str] = {
    "COLOURS": "COLORS",
    "CoreResult": "Evaluated",
    "Familiar": "Contamination",
    "Finding": "Claim",
    "InitialisationConfig": "InitializationConfig",
    "Measured": "Estimate",
    "QuantisationConfig": "QuantizationConfig",
    "Tuned": "Evaluated",
    "Verdict": "Claim",
    "claim": "check_folder",
    "commonest_answer": "majority_answer",
    "commonest_answers": "majority_answers",
    "commonest_judged": "majority_judged",
    "familiar": "contamination",
    "findings": "claims",
    "new_figure": "titled",
    "pools": "source_groups",
    "pools_of": "pooled",
    "verdicts": "claims",
}


def renamed(module: str, name: str) -> Any:
    """The value of an old `name` of a module or package: what its `__getattr__` falls back on.

    Raises AttributeError for names that never were.
    """
    if name in NAMES and hasattr(home := sys.modules[module], NAMES[name]):
        _warn(f"{module}.{name}", f"{module}.{NAMES[name]}")
        return getattr(home, NAMES[name])
    raise AttributeError(f"module {module!r} has no attribute {name!r}")


class _Moved:
    """Finds the pages of `MODULES`, each as a module that looks its names up in the new homes."""

    def find_spec(self, fullname: str, path: object = None, target: object = None) -> Any:
        root, _, page = fullname.partition(".")
        if root != "groundup" or page not in MODULES:
            return None
        # A folder that is gone had pages, which are imported through it.
        return ModuleSpec(fullname, self, is_package=any(p.startswith(f"{page}.") for p in MODULES))  # type: ignore[arg-type]  # a loader by its methods

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return _Page(spec.name, [f"groundup.{home}" for home in MODULES[spec.name[9:]]])

    def exec_module(self, module: ModuleType) -> None:
        pass


class _Page(ModuleType):
    """A page that is gone: whatever is asked of it is looked up where it stands now."""

    def __init__(self, name: str, homes: Sequence[str]) -> None:
        super().__init__(name, f"Moved to {' and '.join(homes)}.")
        self.__dict__["_homes"] = homes

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        for known in (name, NAMES.get(name, name)):
            for home in self._homes:
                if hasattr(page := importlib.import_module(home), known):
                    _warn(f"{self.__name__}.{name}", f"{home}.{known}")
                    return getattr(page, known)
        raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")


def _warn(old: str, new: str) -> None:
    warnings.warn(f"{old} is now {new}", DeprecationWarning, stacklevel=3)


def install() -> None:
    """Let the pages of earlier releases be imported; a second call changes nothing."""
    if not any(isinstance(finder, _Moved) for finder in sys.meta_path):
        sys.meta_path.append(_Moved())
