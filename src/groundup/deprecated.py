"""Old names from before the first release: they still work and warn with the new name.

`MODULES` maps each removed module to the modules that hold its contents now, and `NAMES` maps old
names to new ones. A finder at the end of `sys.meta_path` handles the removed modules only, so
importing an existing module costs nothing extra.
"""

from __future__ import annotations

import functools
import importlib
import sys
import warnings
from importlib.machinery import ModuleSpec
from types import ModuleType

# Loaded before every command, so it avoids the cost of importing `typing`.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any, TypeVar

    F = TypeVar("F", bound=Callable[..., Any])


# Removed module (without `groundup.`): the modules that hold its contents now.
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
# Old name of a public function or class: its new name.
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
# Name that was moved out of a package or module (without `groundup.`): its module now.
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
    "runs.folder.bases": "runs.content",
    "runs.folder.content_hash": "runs.content",
    "runs.folder.environment_facts": "runs.request",
    "runs.folder.folder_hash": "runs.content",
    "runs.folder.recorded_hashes": "runs.content",
    "runs.folder.runs_inside": "runs.content",
    "runs.folder.same_as": "runs.content",
    "runs.folder.user_parts": "runs.request",
}

# Old name of a stage's setting: its new name.
SETTINGS: dict[str, str] = {"chained": "multi_turn", "double_quantisation": "double_quant"}
# Old name of a command-line option, without leading dashes: its new name.
OPTIONS: dict[str, str] = {
    **{old.replace("_", "-"): new.replace("_", "-") for old, new in SETTINGS.items()},
    "world": "mixture.world",
}


def current_settings(settings: Mapping[str, Any], *, warns: bool = False) -> dict[str, Any]:
    """Return a stage's settings under their current names.

    Python code, recipes and run.json may use earlier names. With `warns`, which the config
    validator passes, old names emit a DeprecationWarning. If a setting is given under both names,
    the old one stays and is refused as unknown.
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
            # Skips the frames of the validator and pydantic's constructor.
            _warn(f"{old}=", f"{SETTINGS.get(old, 'mixture')}=", stacklevel=5)
    return found


def renamed(module: str, name: str) -> Any:
    """Return the value of an old `name` of a module: the fallback of its `__getattr__`.

    Raises AttributeError for names that never existed.
    """
    if (page := PAGES.get(f"{module.removeprefix('groundup.')}.{name}")) is not None:
        return moved(f"{module}.{name}", page, name)
    if name in NAMES and hasattr(current := sys.modules[module], NAMES[name]):
        _warn(f"{module}.{name}", f"{module}.{NAMES[name]}")
        return getattr(current, NAMES[name])
    raise AttributeError(f"module {module!r} has no attribute {name!r}")


def moved(old: str, page: str, name: str) -> Any:
    """Return the function in another module that replaced the method `old` of a class."""
    _warn(old, f"groundup.{page}.{name}")
    return getattr(importlib.import_module(f"groundup.{page}"), name)


def renamed_method(old: str, new: str) -> Any:
    """Return a method that warns and calls the method `new`."""

    def called(self: Any, *args: Any, **keywords: Any) -> Any:
        _warn(f"{type(self).__name__}.{old}", f"{type(self).__name__}.{new}")
        return getattr(self, new)(*args, **keywords)

    return called


def renamed_keywords(**names: str) -> Callable[[F], F]:
    """Return a decorator that also accepts a function's keyword arguments under old names."""

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
    """Return the current spelling of an argument's value."""
    if value not in values:
        return value
    _warn(f"{name}={value!r}", repr(values[value]), stacklevel=4)
    return values[value]


def renamed_options(arguments: Sequence[str]) -> list[str]:
    """Return a command line whose options have their current names."""
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


class _RemovedModuleFinder:
    """Import finder for the modules in `MODULES`; each looks its names up in the new modules."""

    def find_spec(self, fullname: str, path: object = None, target: object = None) -> Any:
        root, _, page = fullname.partition(".")
        if root != "groundup" or page not in MODULES:
            return None
        # The modules of a removed package are imported through it.
        return ModuleSpec(fullname, self, is_package=any(p.startswith(f"{page}.") for p in MODULES))  # type: ignore[arg-type]  # a loader by its methods

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return _RemovedModule(spec.name, [f"groundup.{new}" for new in MODULES[spec.name[9:]]])

    def exec_module(self, module: ModuleType) -> None:
        pass


class _RemovedModule(ModuleType):
    """A removed module whose attributes are looked up in the modules that replaced it."""

    def __init__(self, name: str, replacements: Sequence[str]) -> None:
        super().__init__(name, f"Moved to {' and '.join(replacements)}.")
        self.__dict__["_replacements"] = replacements

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        for known in (name, NAMES.get(name, name)):
            for replacement in self._replacements:
                if hasattr(module := importlib.import_module(replacement), known):
                    _warn(f"{self.__name__}.{name}", f"{replacement}.{known}")
                    return getattr(module, known)
        raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")


def _warn(old: str, new: str, stacklevel: int = 3) -> None:
    warnings.warn(f"{old} is now {new}", DeprecationWarning, stacklevel=stacklevel)


def install() -> None:
    """Make modules importable under their earlier names; a second call has no effect."""
    if not any(isinstance(finder, _RemovedModuleFinder) for finder in sys.meta_path):
        sys.meta_path.append(_RemovedModuleFinder())
