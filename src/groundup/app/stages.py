"""The table of stages: what each reads, what it makes, and where its code is.

A stage is `run(config) -> Path`. Recipes and the command line know stages only from this table: to
add one, write its config and its module, and add a row here and each field that names a folder to
`INPUTS`. Configs and code are imported when they are used, so that `groundup --help` is fast.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

TYPE_CHECKING = False
if TYPE_CHECKING:
    from groundup.train.config import StageConfig

REWARDS, GUARDS = ("reward",), ("guard",)
# The fields that name folders to read, and what such a folder may contain.
INPUTS: Mapping[str, tuple[str, ...]] = {
    "data": ("data",),
    "replay_data": ("data",),
    "ptx_data": ("data",),
    "tokenizer": ("tokenizer", "model"),  # a model folder contains its tokenizer
    "model": ("model",),
    "policy": ("model",),
    "models": ("model",),
    "prompts": ("data",),
    "reward": REWARDS,
    "gold": REWARDS,
    "judge": REWARDS,
    "exclude": ("data",),
    "critic": REWARDS,
    "comparison": ("report",),
    "guard": GUARDS,
}
RESUMES = "You can stop it at any moment; the same command resumes it."


@dataclass(frozen=True)
class Stage:
    """A stage: `module` has its `run`, and `config_path` names its config's class.

    `command` is its name on the command line, `help` its one-line description, `more` further
    paragraphs, `examples` commands to copy. `start` is the input that a recipe's `from` sets,
    `positional` the one that is given without an option's name. `parts` are the subfolders of its
    output that are data themselves and that a recipe may name.
    """

    name: str
    command: str
    module: str
    config_path: str
    makes: str
    start: str | None
    help: str
    more: tuple[str, ...] = ()
    examples: tuple[str, ...] = ()
    positional: str | None = None
    parts: tuple[str, ...] = ()

    @cached_property
    def config(self) -> type[StageConfig]:
        module, _, name = self.config_path.partition(":")
        found: type[StageConfig] = getattr(importlib.import_module(module), name)
        return found

    @property
    def attribute(self) -> str:
        """The name of its function in `commands.stages`."""
        return self.command.replace(" ", "_").replace("-", "_")

    @property
    def inputs(self) -> tuple[str, ...]:
        return tuple(name for name in self.config.model_fields if name in INPUTS)

    @property
    def trains(self) -> bool:
        """Whether it trains a model of any kind."""
        return self.makes in ("model", *REWARDS, *GUARDS)

    @property
    def computes(self) -> bool:
        """Whether it trains or measures models."""
        return self.trains or self.start == "model" or self.positional == "models"

    @property
    def takes_parts(self) -> bool:
        """Whether it can run with parts that a learner wrote (`--mine`)."""
        return self.computes or self.makes != "data"

    @property
    def chats(self) -> bool:
        """Whether its model answers, rather than only continues a text."""
        from groundup.train.config import TrainingConfig

        return issubclass(self.config, TrainingConfig) and self.config.traits.chats

    def run(self, config: StageConfig) -> Path:
        """Run the stage unless it is finished, and return its folder."""
        folder: Path = importlib.import_module(self.module).run(config)
        return folder


STAGES: dict[str, Stage] = {
    stage.name: stage
    for stage in (
        Stage(
            "data",
            "data build",
            "groundup.data.build",
            "groundup.data.config:DataConfig",
            makes="data",
            start=None,
            help="Clean, split and check data sets (the data stage).",
            examples=(
                "groundup data build --out runs/data",
                "groundup data build --packs wiki world --out runs/small",
            ),
        ),
        Stage(
            "tokenizer",
            "tokenizer",
            "groundup.data.tokenizer",
            "groundup.data.config:TokenizerConfig",
            makes="tokenizer",
            start="data",
            help="Train a byte-level BPE tokenizer.",
            examples=("groundup tokenizer runs/data --vocab-size 4096 --out runs/tokenizer",),
            positional="data",
        ),
        Stage(
            "pretrain",
            "pretrain",
            "groundup.pretrain.stage",
            "groundup.pretrain.config:PretrainConfig",
            makes="model",
            start="tokenizer",
            help="Pre-train a language model from scratch on documents.",
            more=(RESUMES,),
            examples=(
                "groundup pretrain --data runs/data --tokenizer runs/tokenizer --minutes 10",
                "groundup pretrain --data my-texts/ --tokenizer runs/tokenizer --depth 6",
            ),
        ),
        Stage(
            "sft",
            "sft",
            "groundup.tune.sft",
            "groundup.tune.config:SFTConfig",
            makes="model",
            start="model",
            help="Fine-tune a model, or an adapter for it, on conversations or texts.",
            more=(
                "Conversations teach it to answer; documents (text, Markdown) continue its "
                "pre-training. --adapter lora trains small matrices and leaves the model's weights "
                "as they are; qlora does the same with the weights in 4 bits.",
                RESUMES,
            ),
            examples=(
                "groundup sft quickstart --data my.jsonl --minutes 5",
                "groundup sft pack:smollm2 --data my.jsonl --adapter lora --out runs/lora",
            ),
            positional="model",
        ),
        Stage(
            "soup",
            "soup",
            "groundup.tune.soup",
            "groundup.tune.config:SoupConfig",
            makes="model",
            start=None,
            help="Average the weights of models that were fine-tuned from one parent.",
            more=(
                "Points between two policies can be chosen after training, at no cost (rewarded "
                "soups). Adapters are merged into their base first.",
            ),
            examples=("groundup soup runs/helpful runs/harmless --weights 0.7 0.3",),
            positional="models",
        ),
        Stage(
            "dpo",
            "dpo",
            "groundup.align.dpo",
            "groundup.align.config:DPOConfig",
            makes="model",
            start="model",
            help="Align a model to preferences (direct preference optimization).",
            more=(
                "Rows are {prompt, chosen, rejected}. --loss selects DPO or one of its successors; "
                "simpo and orpo need no reference model. --ptx mixes in fine-tuning data, which "
                "preserves knowledge.",
                RESUMES,
            ),
            examples=(
                "groundup dpo runs/sft --data pairs.jsonl",
                "groundup dpo runs/sft --data votes.jsonl --loss ipo --out runs/ipo",
            ),
            positional="model",
        ),
        Stage(
            "kto",
            "kto",
            "groundup.align.kto",
            "groundup.align.config:KTOConfig",
            makes="model",
            start="model",
            help="Align a model to answers labeled good or bad (Kahneman-Tversky optimization).",
            more=(
                "Rows are {prompt, completion, label} or {messages, label}, where a label is true "
                "or false: no second answer to the same prompt is needed. A pair counts as one "
                "good and one bad answer.",
                RESUMES,
            ),
            examples=("groundup kto runs/sft --data rated.jsonl",),
            positional="model",
        ),
        Stage(
            "reward",
            "reward",
            "groundup.align.reward",
            "groundup.align.config:RewardConfig",
            makes="reward",
            start="model",
            help="Train a reward model, which scores answers by what people prefer.",
            more=(
                "It starts from the fine-tuned model that you want to align; PPO and GRPO then "
                "raise its score.",
                RESUMES,
            ),
            examples=(
                "groundup reward runs/sft --data pairs.jsonl",
                "groundup ppo runs/sft --reward runs/reward --prompts runs/data",
            ),
            positional="model",
        ),
        Stage(
            "guard",
            "guard",
            "groundup.align.guards.stage",
            "groundup.align.guards.config:GuardConfig",
            makes="guard",
            start="model",
            help="Train a guard, which stops harmful messages and harmful answers.",
            more=(
                "It learns from rows that are labeled harmful or benign. Its thresholds are set by "
                "the share of benign rows that it may stop, and its report says what it stops "
                "wrongly. It is off unless a command is given --guard.",
                RESUMES,
            ),
            examples=(
                "groundup guard quickstart/sft --data quickstart/data",
                "groundup chat quickstart --guard runs/guard",
            ),
            positional="model",
        ),
        Stage(
            "ppo",
            "ppo",
            "groundup.align.ppo",
            "groundup.align.config:PPOConfig",
            makes="model",
            start="model",
            help="Align a model to a reward by reinforcement learning (PPO, as in InstructGPT).",
            more=(
                "The model answers prompts, a reward scores the answers, and answers that scored "
                "higher than expected become likelier, with a penalty on the distance from the "
                "initial model.",
                RESUMES,
            ),
            examples=("groundup ppo runs/sft --reward runs/reward --prompts runs/data",),
            positional="model",
        ),
        Stage(
            "grpo",
            "grpo",
            "groundup.align.grpo",
            "groundup.align.config:GRPOConfig",
            makes="model",
            start="model",
            help="Align a model to a reward by comparing its answers to one prompt (GRPO).",
            more=(
                "It needs no critic and suits rewards that verify an answer: --reward sum, json, "
                "unit-test, length:WORDS, format:PATTERN.",
                RESUMES,
            ),
            examples=("groundup grpo runs/sft --reward sum --prompts sums.jsonl",),
            positional="model",
        ),
        Stage(
            "best-of-n",
            "best-of-n",
            "groundup.align.best_of_n",
            "groundup.align.config:BestOfNConfig",
            makes="data",
            start="model",
            help="Answer each prompt many times and keep the best answer; data for SFT and DPO.",
            more=(
                "It reports the reward of the best of n answers for every n, and its cost in nats. "
                "The folder is data too: groundup sft MODEL --data FOLDER is rejection-sampling "
                "fine-tuning (FOLDER/random is its control), and groundup reward or dpo learn from "
                "the pairs that differ in reward.",
                RESUMES,
            ),
            examples=(
                "groundup best-of-n runs/sft --reward runs/reward --prompts runs/data",
                "groundup dpo runs/sft --data runs/best-of-n",
            ),
            positional="model",
            parts=("conversations", "preferences", "random/conversations"),
        ),
        Stage(
            "eval",
            "eval report",
            "groundup.evals.stages.report",
            "groundup.evals.config:EvalConfig",
            makes="report",
            start=None,
            help="Report on a whole journey: measure groundup's models on their held-out data.",
            more=(
                "With the groundup data build folder that the models were trained on, everything "
                "is measured; with your own texts, only bits per byte. Give models in the order of "
                "training, base first.",
            ),
            examples=("groundup eval report runs/base runs/sft runs/dpo --data runs/data",),
            positional="models",
        ),
        Stage(
            "core",
            "eval core",
            "groundup.evals.core",
            "groundup.evals.config:CoreConfig",
            makes="report",
            start=None,
            help="Measure any models on six public benchmarks and bits per byte.",
            examples=("groundup eval core pack:smollm2 runs/lora",),
            positional="models",
        ),
        Stage(
            "values",
            "eval values",
            "groundup.evals.values.suite.report",
            "groundup.evals.config:ValuesConfig",
            makes="report",
            start=None,
            help="Measure utility, safety and fairness of any models, and their trade-offs.",
            more=(
                "Each model is compared with the one that it was trained from. --tasks selects "
                "tasks, --fast uses fewer items of each; finished results are kept.",
            ),
            examples=(
                "groundup eval values quickstart/sft quickstart/dpo",
                "groundup eval values pack:smollm2 --tasks safety bbq --fast",
            ),
            positional="models",
        ),
        Stage(
            "tuning",
            "eval tuning",
            "groundup.evals.domain.report",
            "groundup.evals.config:TuningReportConfig",
            makes="report",
            start=None,
            help="Measure what fine-tuning on a domain gained, and what was forgotten.",
            more=(
                "Give the model before fine-tuning first, and the files that it was fine-tuned on.",
            ),
            examples=("groundup eval tuning pack:smollm2 runs/lora --data my.jsonl",),
            positional="models",
        ),
        Stage(
            "comparison",
            "eval rewards",
            "groundup.align.comparison",
            "groundup.align.config:ComparisonConfig",
            makes="report",
            start=None,
            help="Compare the answers of several models by a reward and by the gold reward.",
            more=(
                "Win rates and nats are relative to the first model. --judge is a reward that no "
                "model was trained on, --best-of adds a baseline without training, --samples gives "
                "pass@k of a verifier; runs that differ only in their seed count as one method.",
            ),
            examples=("groundup eval rewards runs/sft runs/ppo --reward sum --prompts sums.jsonl",),
            positional="models",
        ),
        Stage(
            "frontier",
            "frontier",
            "groundup.experiments.frontier.sweep",
            "groundup.experiments.frontier.config:FrontierConfig",
            makes="report",
            start="model",
            help="Trade utility, safety and fairness: sweep one dial, and compare strategies.",
            more=(
                "Every point is a model that is measured against the small world's truth; "
                "dominated points (another is nowhere worse and somewhere better) are marked. The "
                "dial is a mix of preferences, the share of fair ones, or PPO's KL coefficient; "
                "strategies are a balanced mix, a cost below a limit, a soup of weights, a system "
                "prompt.",
                RESUMES,
            ),
            examples=("groundup frontier quickstart/sft",),
            positional="model",
        ),
        Stage(
            "redteam",
            "redteam",
            "groundup.align.guards.redteam",
            "groundup.evals.config:RedTeamConfig",
            makes="report",
            start=None,
            help="Search for prompts that break a model's conduct in the small world.",
            more=(
                "All models are attacked with the same harmful requests, through other wordings, "
                "frames, attempts and suffixes. It reports how many requests succeed after how "
                "many prompts, compared with the same number of random prompts. --guard puts a "
                "guard in front of every model.",
                RESUMES,
            ),
            examples=("groundup redteam quickstart/sft quickstart/dpo",),
            positional="models",
        ),
        Stage(
            "lm-eval",
            "eval lm-eval",
            "groundup.evals.harness_run",
            "groundup.evals.config:HarnessConfig",
            makes="results",
            start=None,
            help="Run tasks of the lm-evaluation-harness (extra lm-eval).",
            examples=("groundup eval lm-eval pack:smollm2 --tasks arc_easy hellaswag",),
            positional="models",
        ),
    )
}


def _experiment(
    name: str,
    config: str,
    help: str,
    more: tuple[str, ...] = (),
    positional: str | None = None,
    module: str = "",
    settings: str = "config",
    examples: tuple[str, ...] = (),
) -> Stage:
    return Stage(
        name,
        f"experiment {name}",
        f"groundup.experiments.{module or name.replace('-', '_')}",
        f"groundup.experiments.{settings}:{config}",
        makes="report",
        start=None,
        help=help,
        more=more,
        examples=examples,
        positional=positional,
    )


_AS_LONG_AS_GIVEN = "It takes about as long as --minutes says."


def _with_transformers(
    name: str, config: str, help: str, minutes: int | None, page: str = ""
) -> Stage:
    """An experiment of step 3; `minutes` on two cores, None if --minutes determines it."""
    takes = f"About {minutes} minutes on two cores; longer on slower ones."
    more = (_AS_LONG_AS_GIVEN if minutes is None else takes, RESUMES)
    module = f"transformers.{page or name.replace('-', '_')}"
    return _experiment(name, config, help, more, module=module, settings="transformers.config")


# Experiments: like stages, each a config and a `run` that writes a folder.
EXPERIMENTS: dict[str, Stage] = {
    experiment.name: experiment
    for experiment in (
        _experiment(
            "perceptron",
            "PerceptronConfig",
            "What can one neuron learn, and what needs a layer of them?",
            ("About 20 seconds on two cores.",),
        ),
        _experiment(
            "initialization",
            "InitializationConfig",
            "What goes wrong in a deep network whose initial weights are too small or too large?",
        ),
        _experiment(
            "optimizer-race",
            "OptimizerRaceConfig",
            "Which optimizer is fastest on the same network, each at its best learning rate?",
            ("About a minute on two cores.",),
        ),
        _experiment(
            "ladder",
            "LadderConfig",
            "From counting to GPT: what does each kind of language model gain on one text?",
            ("About 11 minutes on two cores.",),
        ),
        _experiment(
            "planted-bias",
            "PlantedBiasConfig",
            "Does a fairness measure find the bias that was planted, and does alignment lower it?",
            ("About 12 minutes on two cores.", RESUMES),
        ),
        _experiment(
            "shortest-paths",
            "ShortestPathsConfig",
            "Do PPO and GRPO find a known best answer, and does a KL penalty limit them?",
            ("About 16 minutes with --threads 1.",),
        ),
        _experiment(
            "overoptimization",
            "OveroptimizationConfig",
            "How far can a reward model be trusted? Gold and proxy by best-of-n and PPO.",
            (
                "Reward models of three sizes and three numbers of labels choose among many "
                "answers, and PPO raises their reward without a KL penalty until the gold reward "
                "falls. About 45 minutes on two cores; longer on slower ones.",
                RESUMES,
            ),
            positional="model",
            examples=(
                "groundup experiment overoptimization quickstart/sft --data quickstart/data",
            ),
        ),
        _experiment(
            "sentiment",
            "SentimentConfig",
            "What do PPO, GRPO and DPO gain per nat when the reward is clear?",
            ("About an hour with --threads 1.", RESUMES),
        ),
        _experiment(
            "scaling-law",
            "ScalingLawConfig",
            "How does the loss depend on size, data and compute, and can a run be predicted?",
            (
                "It trains models of many sizes with the same FLOPs on an endless source of known "
                "entropy, fits a law of their loss, and tests it on a run of four times the "
                f"compute whose loss is predicted before it begins. {_AS_LONG_AS_GIVEN}",
                RESUMES,
            ),
            module="scaling.experiment",
        ),
        _experiment(
            "quantization",
            "QuantizationConfig",
            "What do 16, 8 and 4 bits per weight cost, in error and in perplexity?",
        ),
        _with_transformers(
            "recall",
            "RecallConfig",
            "Does attention recall what a recurrent network of the same width cannot hold?",
            9,
        ),
        _with_transformers(
            "induction",
            "InductionConfig",
            "What does a transformer need to continue what it has seen before in its context?",
            3,
        ),
        _with_transformers(
            "copying",
            "CopyingConfig",
            "Which models learn to copy strings, and which copy longer ones than in training?",
            3,
        ),
        _with_transformers(
            "positions",
            "PositionsConfig",
            "Which position encoding lets a model read longer contexts than in training?",
            16,
        ),
        _with_transformers(
            "attention-cost",
            "AttentionCostConfig",
            "What does a smaller cache cost in loss, and what does it gain in speed?",
            4,
        ),
        _with_transformers(
            "optimizers",
            "OptimizersConfig",
            "How much sooner does Muon reach a loss than AdamW, each at its best learning rate?",
            15,
        ),
        _with_transformers(
            "scalability",
            "ScalabilityConfig",
            "At how much compute does a GPT start to beat an LSTM, and what does each cost?",
            None,
            page="scalability.experiment",
        ),
    )
}
