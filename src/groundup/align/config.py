"""The settings of the alignment stages, without torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, Literal, Self

from pydantic import Field, field_validator, model_validator

from groundup.adapters.config import TuningConfig
from groundup.train.config import Traits
from groundup.train.ranges import Beta, LabelSmoothing, LossWeight, Margin, Share


class PtxConfig(TuningConfig):
    """What every alignment stage has that may go on learning from fine-tuning data (PPO-ptx)."""

    ptx: LossWeight = Field(
        0.0,
        description="weight of the loss on fine-tuning data beside the stage's own, which keeps "
        "knowledge (PPO-ptx of InstructGPT); 0 reads none",
    )
    ptx_data: tuple[Path, ...] | None = Field(
        None,
        min_length=1,
        description="the fine-tuning data of --ptx: whatever groundup sft reads (default: the "
        "conversations of the data-stage folder that --data names)",
    )

    @field_validator("ptx_data", mode="before")
    @classmethod
    def _one_is_enough(cls, value: Any) -> Any:
        values = [value] if isinstance(value, str | Path) else value
        texts = isinstance(values, list | tuple) and all(isinstance(v, str | Path) for v in values)
        return tuple(map(str, values)) if texts else value

    @model_validator(mode="after")
    def _data_are_read(self) -> Self:
        if self.ptx_data is not None and not self.ptx:
            raise ValueError(
                f"ptx_data={str(self.ptx_data[0])!r} is not read with ptx=0; give ptx a weight, "
                "such as 0.3, or leave ptx_data out"
            )
        return self


class PreferenceConfig(PtxConfig):
    """What the stages share that learn from preferences without a reward model."""

    model: Path = Field(description="folder of the fine-tuned model: start and reference alike")
    # Muon follows every direction of a gradient equally far, and so forgets how to speak while it
    # learns to prefer; AdamW at a small rate does not.
    optimizer: Literal["muon", "adamw"] = Field(
        "adamw", description="what trains the matrices; AdamW trains the rest either way"
    )
    warmup: Share = Field(0.1, description="share of the steps spent warming up")


# The settings that each loss has, with its paper's values; IPO's and SLiC's papers name none for
# language models, and have DPO's. DPO's `nll` is from experience: without it small models forget
# to end their turns.
LOSSES: dict[str, dict[str, float]] = {
    "sigmoid": {"beta": 0.1, "nll": 1.0, "label_smoothing": 0.0},
    "ipo": {"beta": 0.1, "nll": 0.0},
    "hinge": {"beta": 0.1, "nll": 0.0},
    "simpo": {"beta": 2.0, "nll": 0.0, "gamma": 1.0},
    "orpo": {"beta": 0.1, "nll": 1.0},
}
# These compare answers without a reference model, and none is computed.
REFERENCE_FREE = ("simpo", "orpo")


def _defaults(name: str) -> str:
    """The values of a setting by loss, as --help tells them."""
    return ", ".join(f"{loss} {own[name]:g}" for loss, own in LOSSES.items())


class DPOConfig(PreferenceConfig):
    """Direct preference optimisation: raise what people prefer over what they do not."""

    # A quarter of the time goes into what the reference thinks of each pair.
    traits: ClassVar[Traits] = Traits("preferences", True, "preference_loss", 0.12, in_steps=0.75)

    data: Path = Field(
        description="a data-stage folder, or a .jsonl, .csv or .parquet file of pairs"
    )
    loss: Literal["sigmoid", "ipo", "hinge", "simpo", "orpo"] = Field(
        "sigmoid",
        description="sigmoid: DPO; ipo: a margin to reach and not to pass; hinge: SLiC's, none "
        "beyond a margin; simpo, orpo: per token and without a reference. Answers with labels "
        "instead of pairs: groundup kto",
    )
    beta: Beta | None = Field(
        None,
        description="how dearly moving away from the reference is paid; simpo: scale of the "
        "reward; orpo: weight of the odds ratio (default: " + _defaults("beta") + ")",
    )
    nll: LossWeight | None = Field(
        None,
        description="weight of the chosen answer's own loss, a mean over its tokens; 0 is the "
        "plain loss (default: " + _defaults("nll") + ")",
    )
    label_smoothing: LabelSmoothing = Field(
        0.0,
        description="for sigmoid: share of the pairs that may be labelled the wrong way round "
        "(conservative DPO)",
    )
    gamma: Margin | None = Field(
        None,
        description="for simpo: margin of rewards that it asks for (default: "
        f"{LOSSES['simpo']['gamma']:g})",
    )

    @model_validator(mode="before")
    @classmethod
    def _as_the_paper_has_it(cls, given: Any) -> Any:
        """Fill in what nobody set with the loss's own values."""
        if not isinstance(given, dict):
            return given
        own = LOSSES.get(str(given.get("loss", "sigmoid")), LOSSES["sigmoid"])
        unset = (name for name in own if cls.model_fields[name].default is None)
        return given | {name: own[name] for name in unset if given.get(name) is None}

    @property
    def loss_settings(self) -> dict[str, Any]:
        """What `pair_loss` is to be told."""
        return {
            "loss": self.loss,
            "beta": self.beta,
            "label_smoothing": self.label_smoothing,
            "gamma": self.gamma or 0.0,
        }

    @model_validator(mode="after")
    def _settings_are_of_the_loss(self) -> Self:
        """A setting of another loss would be silently ignored."""
        for name in ("label_smoothing", "gamma"):
            unset = type(self).model_fields[name].default
            if name not in LOSSES[self.loss] and getattr(self, name) != unset:
                having = " or ".join(repr(loss) for loss, own in LOSSES.items() if name in own)
                raise ValueError(
                    f"{name}={getattr(self, name):g} has no meaning with loss={self.loss!r}; "
                    f"choose loss={having}, or leave {name} out"
                )
        return self


class KTOConfig(PreferenceConfig):
    """Kahneman-Tversky optimization: raise answers called good and lower those called bad."""

    # As for DPO; an answer is read twice, with its prompt and with another.
    traits: ClassVar[Traits] = Traits("preferences", True, "preference_loss", 0.12, in_steps=0.75)

    data: Path = Field(
        description="a data-stage folder, or a .jsonl, .csv or .parquet file of answers with a "
        "label, true or false, or of pairs"
    )
    beta: Beta = Field(0.1, description="how dearly moving away from the reference is paid")
    desirable_weight: LossWeight = Field(
        1.0, description="weight of answers that are labelled true, the chosen of pairs"
    )
    undesirable_weight: LossWeight = Field(
        1.0, description="weight of answers that are labelled false, the rejected of pairs"
    )

    @model_validator(mode="after")
    def _something_is_learned(self) -> Self:
        if not self.desirable_weight and not self.undesirable_weight:
            raise ValueError(
                "desirable_weight=0 and undesirable_weight=0 leave nothing to learn; give one of "
                "them a weight, such as 1"
            )
        return self
