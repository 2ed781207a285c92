"""The stages by name: what each reads, what it makes, and where its code lies.

A stage is `run(config) -> Path`. This table is all that recipes and the command line know of one:
to add a stage, write its config and its page, and add a row here. Configs and code are imported
when they are used, so that `groundup --help` answers at once.
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
# The fields that name folders to read, and what may lie in such a folder.
INPUTS: Mapping[str, tuple[str, ...]] = {
    "data": ("data",),
    "replay_data": ("data",),
    "ptx_data": ("data",),
    "tokenizer": ("tokenizer", "model"),  # a model folder carries its tokenizer
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
RESUMES = "You can stop it at any moment: the same command goes on from there."


@dataclass(frozen=True)
class Stage:
    """One kind of step: `module` holds its `run`, `config_path` names its config's class.

    `command` is what the command line calls it, `help` its line there and `more` further
    paragraphs. `start` is the input that a recipe's `from` fills, and `positional` the one that is
    given without an option's name. `parts` are the folders in what it makes that are data by
    themselves, where a recipe may name them.
    """

    name: str
    command: str
    module: str
    config_path: str
    makes: str
    start: str | None
    help: str
    more: tuple[str, ...] = ()
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
        """Whether it trains a model, of whatever kind."""
        return self.makes in ("model", *REWARDS, *GUARDS)

    @property
    def computes(self) -> bool:
        """Whether it runs models, to train them or to measure them."""
        return self.trains or self.start == "model" or self.positional == "models"

    @property
    def takes_parts(self) -> bool:
        """Whether parts that a learner wrote can take the product's place in it."""
        return self.computes or self.makes != "data"

    @property
    def chats(self) -> bool:
        """Whether its model answers, rather than only continues a text."""
        from groundup.train.config import TrainingConfig

        return issubclass(self.config, TrainingConfig) and self.config.traits.chats

    def run(self, config: StageConfig) -> Path:
        """Do the work, or find it done; return the folder it lies in."""
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
            help="Clean, split and check data sets: the data stage.",
        ),
        Stage(
            "tokenizer",
            "tokenizer",
            "groundup.data.tokenizer",
            "groundup.data.config:TokenizerConfig",
            makes="tokenizer",
            start="data",
            help="Train a byte-level BPE tokenizer.",
            positional="data",
        ),
        Stage(
            "pretrain",
            "pretrain",
            "groundup.pretrain.stage",
            "groundup.pretrain.config:PretrainConfig",
            makes="model",
            start="tokenizer",
            help="Train a language model from nothing on documents.",
            more=(RESUMES,),
        ),
        Stage(
            "sft",
            "sft",
            "groundup.tune.sft",
            "groundup.tune.config:SFTConfig",
            makes="model",
            start="model",
            help="Fine-tune a model on conversations or texts: whole, or an adapter.",
            more=(
                "Conversations teach it to answer; documents (text, Markdown) go on with its "
                "pre-training. --adapter lora trains small matrices beside it, qlora the same "
                "beside weights of 4 bits.",
                RESUMES,
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
                "groundup soup HELPFUL HARMLESS --weights 0.5 0.5 --out runs/soup. What lies "
                "between two policies can be chosen after training, at no cost (rewarded soups). "
                "Adapters are merged into their base first.",
            ),
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
                "Rows are {prompt, chosen, rejected}. --loss chooses among DPO and its successors; "
                "simpo and orpo need no reference model. --ptx mixes fine-tuning data in, which "
                "keeps knowledge.",
                RESUMES,
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
            help="Align a model to answers called good or bad (Kahneman-Tversky optimization).",
            more=(
                "Rows are {prompt, completion, label} or {messages, label}, with true or false for "
                "a label: no second answer to the same prompt is needed. Pairs are taken as one "
                "good and one bad answer.",
                RESUMES,
            ),
            positional="model",
        ),
        Stage(
            "reward",
            "reward",
            "groundup.align.reward",
            "groundup.align.config:RewardConfig",
            makes="reward",
            start="model",
            help="Train a reward model: which of two answers people prefer, as a number.",
            more=(
                "It starts from the fine-tuned model that is to be aligned, and PPO and GRPO raise "
                "what it says: groundup ppo MODEL --reward FOLDER.",
                RESUMES,
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
            help="Train a guard: what stops harmful messages and answers before and behind a "
            "model.",
            more=(
                "It learns from rows that are labeled harmful or benign, its thresholds are set "
                "by a share of benign ones that it may stop, and its report says what it stops "
                "wrongly. It is off until it is asked for: groundup chat MODEL --guard FOLDER.",
                RESUMES,
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
                "The model answers prompts, a reward scores the answers, and what scored more than "
                "expected becomes likelier, at a price on leaving the model it started from.",
                RESUMES,
            ),
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
                "It needs no critic, and suits rewards that check an answer: --reward sum, json, "
                "unit-test, length:WORDS, format:PATTERN.",
                RESUMES,
            ),
            positional="model",
        ),
        Stage(
            "best-of-n",
            "best-of-n",
            "groundup.align.best_of_n",
            "groundup.align.config:BestOfNConfig",
            makes="data",
            start="model",
            help="Answer each prompt many times and keep what scores best; data for SFT and DPO.",
            more=(
                "What the best of n answers is worth, for every n, with what it costs in nats. The "
                "folder is data as well: groundup sft MODEL --data FOLDER is rejection-sampling "
                "fine-tuning (FOLDER/random is its control), and groundup reward or dpo learn from "
                "the pairs that differ in reward.",
                RESUMES,
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
            help="The report on a whole journey: groundup's own models on what their data hold "
            "out.",
            more=(
                "groundup eval report quickstart/base quickstart/sft quickstart/dpo --data "
                "quickstart/data. With the folder that groundup data build wrote, the one that the "
                "models were trained on, everything is measured; with texts of your own bits per "
                "byte alone. Models stand in the order of training, base first.",
            ),
            positional="models",
        ),
        Stage(
            "core",
            "eval core",
            "groundup.evals.core",
            "groundup.evals.config:CoreConfig",
            makes="report",
            start=None,
            help="Six public benchmarks and bits per byte, for models from anywhere.",
            more=("groundup eval core pack:smollm2",),
            positional="models",
        ),
        Stage(
            "values",
            "eval values",
            "groundup.evals.values.suite.report",
            "groundup.evals.config:ValuesConfig",
            makes="report",
            start=None,
            help="Utility, safety and fairness of models from anywhere, and what was traded.",
            more=(
                "groundup eval values quickstart/sft quickstart/dpo. Each model is compared with "
                "the one that it was trained from. --tasks chooses some alone (--tasks bbq, "
                "--tasks safety), --fast asks less of each; what was asked once is kept.",
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
            help="What fine-tuning on a domain brought, and what was forgotten.",
            more=(
                "groundup eval tuning BEFORE AFTER --data my.jsonl. It takes the model before it "
                "first, and the files that were fine-tuned on.",
            ),
            positional="models",
        ),
        Stage(
            "comparison",
            "eval rewards",
            "groundup.align.comparison",
            "groundup.align.config:ComparisonConfig",
            makes="report",
            start=None,
            help="What the answers of several models are worth, by a reward and by the truth.",
            more=(
                "groundup eval rewards SFT PPO DPO --reward runs/reward --prompts runs/data. Win "
                "rates and nats are against the first model. --judge is a reward that none was "
                "trained on, --best-of a baseline without training, --samples tells pass@k of a "
                "reward that checks; runs that differ in their seed alone are one method.",
            ),
            positional="models",
        ),
        Stage(
            "frontier",
            "frontier",
            "groundup.experiments.frontier.sweep",
            "groundup.experiments.frontier.config:FrontierConfig",
            makes="report",
            start="model",
            help="Utility against safety against fairness: one dial swept, strategies beside it.",
            more=(
                "groundup frontier quickstart/sft. Every point is a model that is measured on the "
                "small world's truth; points that another one dominates (nowhere worse, somewhere "
                "better) are marked. The dial is a mix of preferences, the share of fair ones, or "
                "PPO's price of a nat; strategies are a balanced mix, a cost below a limit, a soup "
                "of weights, a system prompt.",
                RESUMES,
            ),
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
                "groundup redteam quickstart/sft quickstart/dpo attacks both on the same harmful "
                "requests, by other wordings, frames, attempts and suffixes, and says how many "
                "were broken by how many prompts, beside as many prompts at random. --guard puts "
                "a guard before every model.",
                RESUMES,
            ),
            positional="models",
        ),
        Stage(
            "lm-eval",
            "eval lm-eval",
            "groundup.evals.harness_run",
            "groundup.evals.config:HarnessConfig",
            makes="results",
            start=None,
            help="Tasks of the lm-evaluation-harness (extra lm-eval).",
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
        positional=positional,
    )


_AS_LONG_AS_IT_MAY = "It takes about as long as --minutes says."


def _with_transformers(
    name: str, config: str, help: str, minutes: int | None, page: str = ""
) -> Stage:
    """An experiment of step 3, and about how long it takes on two cores; None: as it is told."""
    takes = f"About {minutes} minutes on two cores; longer on slower ones."
    more = (_AS_LONG_AS_IT_MAY if minutes is None else takes, RESUMES)
    module = f"transformers.{page or name.replace('-', '_')}"
    return _experiment(name, config, help, more, module=module, settings="transformers.config")


# Experiments: like stages, each a config and a `run` that writes a folder.
EXPERIMENTS: dict[str, Stage] = {
    experiment.name: experiment
    for experiment in (
        _experiment(
            "perceptron",
            "PerceptronConfig",
            "What can one neuron learn, and what takes a layer of them?",
            ("About 20 seconds on two cores.",),
        ),
        _experiment(
            "initialization",
            "InitializationConfig",
            "What goes wrong in a deep network whose weights begin too small or too large?",
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
            "From counting to GPT: what does each rung of language models gain on one text?",
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
            "Do PPO and GRPO find the best answer where it is known, and does a price hold them?",
            ("About 16 minutes on one thread.",),
        ),
        _experiment(
            "overoptimization",
            "OveroptimizationConfig",
            "How far can a reward model be trusted? Gold and proxy by best-of-n and PPO.",
            (
                "Reward models of three sizes and three numbers of labels choose among many "
                "answers, and PPO raises them without a price on nats, until what they stand for "
                "falls: groundup experiment overoptimization quickstart/sft --data "
                "quickstart/data. About 45 minutes on two cores; longer on slower ones.",
                RESUMES,
            ),
            positional="model",
        ),
        _experiment(
            "sentiment",
            "SentimentConfig",
            "What do PPO, GRPO and DPO buy for a nat, where the reward is clear?",
            ("About an hour on one thread.", RESUMES),
        ),
        _experiment(
            "scaling-law",
            "ScalingLawConfig",
            "What do size, data and compute buy, and can a loss be told before the run?",
            (
                "Models of many sizes with the same FLOPs on a source without end whose entropy is "
                "known, a law of their loss, and a run of four times the compute whose loss is "
                f"predicted before it begins. {_AS_LONG_AS_IT_MAY}",
                RESUMES,
            ),
            module="scaling.experiment",
        ),
        _experiment(
            "quantization",
            "QuantizationConfig",
            "What do 16, 8 and 4 bits a weight cost, in error and in perplexity?",
        ),
        _with_transformers(
            "recall",
            "RecallConfig",
            "Does attention recall what a recurrent network of as many features cannot hold?",
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
            "Who learns to copy strings, and who copies longer ones than any in training?",
            3,
        ),
        _with_transformers(
            "positions",
            "PositionsConfig",
            "Which way to tell the order lets a model read further than it was trained?",
            16,
        ),
        _with_transformers(
            "attention-cost",
            "AttentionCostConfig",
            "What does a smaller cache cost in loss, and what does it bring in speed?",
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
            "From how much compute on does a GPT beat an LSTM, and what does each cost?",
            None,
            page="scalability.experiment",
        ),
    )
}
