"""Names from before the first release: they still work, and a warning says the new name.

`MODULES` says for each page that is gone where its contents stand today, `NAMES` what was renamed.
A finder at the very end of Python's import path answers for those pages alone, so a module that
exists costs nothing.
"""

from __future__ import annotations

import functools
import importlib
import sys
import warnings
from importlib.machinery import ModuleSpec
from types import ModuleType

# Read before every command, so without what loading `typing` costs.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any, TypeVar

    F = TypeVar("F", bound=Callable[..., Any])


# A page that is gone, without `groundup.`: the pages that hold its contents now.
MODULES: dict[str, tuple[str, ...]] = {
    "adapters.adapter_files": ("formats.peft",),
    "adapters.peft_config": ("formats.peft_config",),
    "align.verifiers": ("align.rewards.verifiers",),
    "chat": ("app.chat",),
    "cli": ("app.cli",),
    "completions": ("app.completions",),
    "conversation": ("app.conversation",),
    "evals.aims": ("evals.world.aims",),
    "evals.checks": ("formats.checks",),
    "evals.compared": ("evals.stages.measures", "evals.measure", "report.table", "report.claim"),
    "evals.copies": ("formats.compare",),
    "evals.core_page": ("evals.core",),
    "evals.familiar": ("evals.contamination",),
    "evals.findings": ("evals.stages.claims", "report.claim"),
    "evals.history": ("report.history",),
    "evals.inspection_page": ("data.inspection_report",),
    "evals.inspection_terminal": ("data.inspection_report",),
    "evals.material": ("evals.stages.material",),
    "evals.measured": ("report.estimate", "evals.by_source"),
    "evals.opening": ("evals.stages.opening", "report.page"),
    "evals.pages": ("report.page",),
    "evals.plots": ("report.plots", "report.figure"),
    "evals.report": ("evals.stages.report",),
    "evals.report_page": ("evals.stages.page",),
    "evals.run": ("evals.stages.report", "evals.measure"),
    "evals.score": ("lm.logprobs",),
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
    "adapters.config": ("tune.config",),
    "adapters.copies": ("adapters.modules_to_save",),
    "adapters.dynamic8": ("adapters.blockwise_8bit",),
    "adapters.quantised": ("adapters.quantization",),
    "adapters.targets": ("adapters.layers",),
    "lm.adapted": ("formats.adapter", "formats.load"),
    "lm.card": ("formats.card",),
    "lm.early_stopping": ("train.early_stopping",),
    "lm.engine": ("generation.engine",),
    "lm.four_bit": ("formats.bitsandbytes",),
    "lm.generate": ("generation.generate", "generation.request", "generation.sampling"),
    "lm.gguf": ("formats.gguf.model", "formats.gguf.tensors", "formats.gguf.write"),
    "lm.gguf_blocks": ("formats.gguf.tensors",),
    "lm.gguf_config": ("formats.gguf.settings",),
    "lm.gguf_rope": ("formats.gguf.settings",),
    "lm.gguf_settings": ("formats.gguf.settings",),
    "lm.gguf_writing": ("formats.gguf.write",),
    "lm.hub": ("formats.load", "formats.folder"),
    "lm.modelfile": ("formats.modelfile",),
    "lm.reader": ("formats.hf_config", "lm.config"),
    "lm.reading": ("generation.prefill", "lm.model"),
    "lm.request": ("generation.request",),
    "lm.rope": ("lm.config", "formats.hf_config"),
    "lm.sample": ("generation.sampling",),
    "lm.score": ("lm.logprobs",),
    "lm.sources": ("formats.locate",),
    "lm.training": ("train.stage", "train.pace", "train.plan"),
    "lm.tuning": ("tune.prepare",),
    "lm.weights": ("formats.weights",),
    "maths.autograd": ("maths.tensor",),
    "maths.changes": ("maths.tensor",),
    "maths.layout": ("maths.graph.layout",),
    "maths.optimise": ("maths.optimize",),
    "maths.style": ("maths.graph.draw",),
    "maths.values": ("maths.arrays", "maths.tensor"),
    "plan": ("app.plan",),
    "process": ("app.process",),
    "recipe": ("app.recipe", "app.journey", "app.recipe_folder"),
    "recipes": ("app.recipes",),
    "stages": ("app.stages", "app.settings"),
    "terminal": ("app.terminal",),
    "text.build": ("data.build",),
    "text.chitchat": ("data.packs.chitchat",),
    "text.config": ("data.config",),
    "text.conversations": ("data.packs.wiki", "data.packs.own", "data.packs.chatterbot"),
    "text.corpus": ("data.corpus", "text.shards", "text.rows"),
    "text.csv_files": ("data.files",),
    "text.fields": ("data.fields",),
    "text.gguf_cursor": ("formats.gguf.header",),
    "text.gguf_header": ("formats.gguf.header",),
    "text.gguf_tokenizer": ("formats.gguf.tokenizer",),
    "text.gguf_tokenizer_writing": ("formats.gguf.tokenizer",),
    "text.gguf_types": ("formats.gguf.header",),
    "text.hub_data": ("data.hub",),
    "text.inspection": ("data.inspection",),
    "text.kinds": ("text.rows",),
    "text.layouts": ("data.records",),
    "text.leaks": ("data.leaks",),
    "text.manifest": ("data.packs.manifest",),
    "text.marked": ("text.example",),
    "text.newcomers": ("data.packs.newcomers",),
    "text.own_data": ("data.dataset",),
    "text.own_sources": ("data.dataset",),
    "text.packs": ("data.packs.fetch", "data.packs.manifest"),
    "text.packing": ("text.batches",),
    "text.pretokenizers": ("formats.gguf.pretokenizers",),
    "text.questions": ("data.packs.questions",),
    "text.records": ("data.records", "data.files", "data.split", "text.rows"),
    "text.refusals": ("data.packs.harm_scores",),
    "text.row_files": ("data.files",),
    "text.samples": ("data.samples",),
    "text.shown": ("text.token_view",),
    "text.sources": (
        "data.packs.rows",
        *(f"data.packs.{name}" for name in ("wiki", "boolq", "questions", "sotu", "chatterbot")),
        "data.packs.harm_scores",
    ),
    "text.splitting": ("data.split",),
    "text.synthetic": ("data.packs.world",),
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
    "train.schedule": ("train.optim",),
}
# An old name of a public function or class: its name now.
NAMES: dict[str, str] = {
    "Admission": "InputProcessor",
    "Asked": "PromptRow",
    "Best": "EarlyStopping",
    "COLOURS": "COLORS",
    "CoreResult": "Evaluated",
    "Dice": "SeededRandom",
    "Draws": "BatchedSampling",
    "Familiar": "Contamination",
    "Finding": "Claim",
    "InitialisationConfig": "InitializationConfig",
    "Items": "Encoded",
    "Marked": "Example",
    "Measured": "Estimate",
    "OwnData": "Dataset",
    "QuantisationConfig": "QuantizationConfig",
    "Reader": "ConfigReader",
    "Reading": "Prefill",
    "SetAside": "Rejected",
    "Start": "PreparedModel",
    "Text": "Detokenizer",
    "Training": "Trained",
    "Tuned": "Evaluated",
    "Verdict": "Claim",
    "as_neighbours": "interleaved",
    "choose": "sample",
    "choose_prompts": "schedule",
    "claim": "check_folder",
    "clip_grad_norm": "clip_grad_norm_",
    "clip_grad_value": "clip_grad_value_",
    "commonest_answer": "majority_answer",
    "commonest_answers": "majority_answers",
    "commonest_judged": "majority_judged",
    "dequantise": "dequantize",
    "dequantise_4bit": "dequantize_4bit",
    "dequantise_8bit": "dequantize_8bit",
    "double_quantisation": "double_quant",
    "familiar": "contamination",
    "findings": "claims",
    "growing": "resumable_lines",
    "is_quantised": "is_quantized",
    "key": "normal_form",
    "minimise": "minimize",
    "new_figure": "titled",
    "numbers": "read_tensor",
    "penalised": "penalized",
    "place": "split_hash",
    "planned": "make_plan",
    "pools": "source_groups",
    "pools_of": "pooled",
    "quantise": "quantize",
    "quantise_4bit": "quantize_4bit",
    "quantise_8bit": "quantize_8bit",
    "quantised_layer": "quantized_layer",
    "quantised_layers": "quantized_layers",
    "read_each": "load_datasets",
    "read_own": "load_dataset",
    "recording": "set_grad_enabled",
    "resolved": "resolve_plan",
    "show": "print_plan",
    "shown": "shorten",
    "shown_tokens": "view_tokens",
    "start": "prepare_model",
    "verdicts": "claims",
}
# What a package or a page no longer has, without `groundup.`: the page on which it stands.
PAGES: dict[str, str] = {
    "adapters.load_adapter": "formats.peft",
    "adapters.lora.active_adapter": "adapters.attach",
    "adapters.lora.adapter_names": "adapters.attach",
    "adapters.lora.add_lora": "adapters.attach",
    "adapters.lora.attach": "adapters.attach",
    "adapters.lora.check_known": "adapters.attach",
    "adapters.lora.merge": "adapters.attach",
    "adapters.lora.train_only": "adapters.attach",
    "adapters.lora.unmerge": "adapters.attach",
    "adapters.lora.use_adapter": "adapters.attach",
    "adapters.lora.using_adapter": "adapters.attach",
    "adapters.save_adapter": "formats.peft",
    "align.label.Comparison": "align.label.comparison",
    "align.label.Result": "align.label.ratings",
    "align.label.Standing": "align.label.ratings",
    "align.label.VoteLog": "align.label.log",
    "align.label.check_models": "align.label.log",
    "align.label.comparisons": "align.label.comparison",
    "align.label.now": "align.label.log",
    "align.label.result": "align.label.ratings",
    "align.label.result_table": "align.label.ratings",
    "align.label.vote_log": "align.label.log",
    "align.reward.is_reward_model": "align.rewards.model",
    "align.reward.load_reward_model": "align.rewards.model",
    "align.rewards.open_rollout_reward": "align.rewards.by_name",
    "align.rewards.reward_folders": "align.rewards.by_name",
}

# A setting of a stage by its old name: its name now.
SETTINGS: dict[str, str] = {"chained": "multi_turn", "double_quantisation": "double_quant"}
# An option of the command line by its old name, without dashes: its name now.
OPTIONS: dict[str, str] = {
    **{old.replace("_", "-"): new.replace("_", "-") for old, new in SETTINGS.items()},
    "world": "mixture.world",
}


def current_settings(settings: Mapping[str, Any], *, warns: bool = False) -> dict[str, Any]:
    """A stage's settings by today's names: Python, recipes and run.json may have earlier ones.

    With `warns`, for the validator of a config, whoever wrote them is told. Where a setting is
    given by both names, the old one stays, as one that there is not.
    """
    found = dict(settings)
    given = found.keys() & {"world", "world_first", "world_last"}
    if given and "mixture" not in found:
        ends = [found.pop("world_first", 0.7), found.pop("world_last", 0.15)]
        found["mixture"] = {"world": found.pop("world") if given == {"world"} else ends}
    for old, new in SETTINGS.items():
        if old in found and new not in found:
            found[new] = found.pop(old)
    if warns:
        for old in settings.keys() - found.keys():
            # Past the validator and pydantic's constructor.
            _warn(f"{old}=", f"{SETTINGS.get(old, 'mixture')}=", stacklevel=5)
    return found


def renamed(module: str, name: str) -> Any:
    """The value of an old `name` of a module or package: what its `__getattr__` falls back on.

    Raises AttributeError for names that never were.
    """
    if (page := PAGES.get(f"{module.removeprefix('groundup.')}.{name}")) is not None:
        return moved(f"{module}.{name}", page, name)
    if name in NAMES and hasattr(home := sys.modules[module], NAMES[name]):
        _warn(f"{module}.{name}", f"{module}.{NAMES[name]}")
        return getattr(home, NAMES[name])
    raise AttributeError(f"module {module!r} has no attribute {name!r}")


def moved(old: str, page: str, name: str) -> Any:
    """What the method `old` of a class has become on another page, for its last callers."""
    _warn(old, f"groundup.{page}.{name}")
    return getattr(importlib.import_module(f"groundup.{page}"), name)


def renamed_method(old: str, new: str) -> Any:
    """A class's method by its old name."""

    def called(self: Any, *args: Any, **keywords: Any) -> Any:
        _warn(f"{type(self).__name__}.{old}", f"{type(self).__name__}.{new}")
        return getattr(self, new)(*args, **keywords)

    return called


def renamed_keywords(**names: str) -> Callable[[F], F]:
    """A decorator: a function's keywords are taken by their old names as well."""

    def decorated(function: F) -> F:
        @functools.wraps(function)
        def called(*args: Any, **keywords: Any) -> Any:
            for old in names.keys() & keywords.keys():
                _warn(f"{function.__name__}({old}=)", f"{names[old]}=")
                keywords[names[old]] = keywords.pop(old)
            return function(*args, **keywords)

        return called  # type: ignore[return-value]  # of the same signature

    return decorated


def current_value(name: str, value: str, **values: str) -> str:
    """What an argument says today, where it says so by an old word."""
    if value not in values:
        return value
    _warn(f"{name}={value!r}", repr(values[value]), stacklevel=4)
    return values[value]


def renamed_options(arguments: Sequence[str]) -> list[str]:
    """A command line whose options have the names of today."""
    options = {f"--{no}{old}": f"--{no}{new}" for old, new in OPTIONS.items() for no in ("", "no-")}
    shares = {"--world-first": "0.7", "--world-last": "0.15"}  # one option took their place
    found, ends = list[str](), dict[str, str]()
    words = iter(arguments)
    for word in words:
        name, equals, value = word.partition("=")
        if name in shares:
            ends[name] = value if equals else next(words, "")
        else:
            found.append(options.get(name, name) + equals + value)
    if ends:
        found += ["--mixture.world", *(shares | ends).values()]
    return found


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


def _warn(old: str, new: str, stacklevel: int = 3) -> None:
    warnings.warn(f"{old} is now {new}", DeprecationWarning, stacklevel=stacklevel)


def install() -> None:
    """Let pages be imported by their earlier names; a second call changes nothing."""
    if not any(isinstance(finder, _Moved) for finder in sys.meta_path):
        sys.meta_path.append(_Moved())
