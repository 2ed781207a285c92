"""Warnings of reinforcement learning, given once each: the value, the rule, the remedy.

A run that learns from its own answers fails in few ways, and its reward shows none of them: the
policy moves to where the reward means nothing (Gao et al. 2022), it answers every prompt alike, it
stops ending its answers, the reward does not distinguish them, or the steps are too large or too
small for the samples (the share of clipped ratios; Hilton's "Deep RL for language models" advises
1 to 20 %).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from math import sqrt

from groundup.train.batch import Loss

# At this many nats from the reference (root 5), a reward has usually turned against what it stands
# for (Gao et al. 2022, figure 1).
_MAX_NATS = 25.0
# The share of clipped ratios below which steps are too small, and above which they are too large.
_FEW_CLIPPED, _MANY_CLIPPED = 0.01, 0.2
# Iterations over which the shares of clipped ratios and of ended answers are averaged.
_WINDOW = 10
# A share of the initial entropy; a policy that learns what is right falls to a half or less.
_LOW_ENTROPY = 0.1
# This many iterations in a row with equal rewards are no accident.
_SAME_REWARDS = 5
# How far the share of ended answers may fall, absolutely and in standard errors. A run looks
# hundreds of times: of runs of 100 iterations in which nothing changes, fewer than 3 % see that.
_LARGEST_FALL, _STANDARD_ERRORS = 0.2, 4.0


class Watch:
    """Follows a run's iterations and prints warnings through `say`.

    `repeats` says whether answers are read more than once per policy: only then can a ratio be
    clipped. While the policy does not train (its critic warms up), its clipping is not judged.
    """

    def __init__(self, stage: str, say: Callable[[str], None], *, repeats: bool) -> None:
        self.stage, self._say, self.repeats = stage, say, repeats
        self.policy_trains = True
        self._said: set[str] = set()
        self._entropy: float | None = None
        # For each iteration: the share of answers that end, and the number of prompts.
        self._ends: list[tuple[float, int]] = []
        self._outside, self._tokens = 0.0, 0.0
        self._shares: deque[float] = deque(maxlen=_WINDOW)
        self._judged_clipping = False
        self._equal_rewards = 0

    def begin(self, entropy: float, ends: Sequence[tuple[float, int]] = ()) -> None:
        """Set the initial entropy and, in a resumed run, how the answers of iterations ended."""
        self._entropy, self._ends = entropy, list(ends)
        self._judged_clipping = len(ends) > _WINDOW

    def step(self, loss: Loss) -> None:
        """Count a micro-batch's clipped ratios."""
        outside, tokens = loss.metrics.get("clipped", (0.0, 0.0))
        self._outside, self._tokens = self._outside + outside, self._tokens + tokens

    def iteration(
        self, *, kl: float, entropy: float, ended: float, prompts: int, told_apart: bool = True
    ) -> None:
        """Judge an iteration's answers, and the steps that were taken on the previous ones.

        `ended` is the share of answers that end, among those to `prompts` prompts; `told_apart`
        says whether rewards differed among answers that are compared.
        """
        if self._entropy is None:
            self.begin(entropy)
            self._outside = self._tokens = 0.0  # left over from measuring the speed
        assert self._entropy is not None
        self._judge_steps()
        if kl > _MAX_NATS:
            self._warn(
                "far",
                f"answers are {kl:.0f} nats from the reference, and beyond {_MAX_NATS:g} a reward "
                "seldom means what it did; raise --kl-coef or lower --learning-rate",
            )
        if entropy < _LOW_ENTROPY * self._entropy:
            self._warn(
                "alike",
                f"the policy's entropy has fallen from {self._entropy:.3f} to {entropy:.3f} nats a "
                f"token, below a {1 / _LOW_ENTROPY:.0f}th of that: answers become alike and teach "
                "nothing; raise --kl-coef, lower --learning-rate, or stop here",
            )
        self._equal_rewards = 0 if told_apart else self._equal_rewards + 1
        if self._equal_rewards >= _SAME_REWARDS:
            self._warn(
                "silent",
                f"in the last {_SAME_REWARDS} iterations the reward was the same for all answers "
                "that are compared, so nothing is learned; give prompts that are neither always "
                "nor never answered correctly, or another --reward",
            )
        self._ends.append((ended, prompts))
        self._judge_ends()

    def _judge_ends(self) -> None:
        """Compare the last iterations' share of ended answers with that of the first ones.

        The standard error of the difference counts prompts, as answers to one prompt are alike. The
        first ones may be a single iteration: if the share falls at once, no other was high.
        """
        for first in range(1, min(_WINDOW, len(self._ends) - 1) + 1):
            before, asked = _pooled(self._ends[:first])
            now, asks = _pooled(self._ends[first:][-_WINDOW:])
            both, _ = _pooled([(before, asked), (now, asks)])
            error = sqrt(both * (1 - both) * (1 / asked + 1 / asks))
            if before - now > max(_LARGEST_FALL, _STANDARD_ERRORS * error):
                self._warn(
                    "endless",
                    f"{now:.0%} of the answers end, and {before:.0%} did at first: a fall of "
                    f"more than {100 * _LARGEST_FALL:.0f} points; raise --missing-eos-penalty or "
                    "--max-new-tokens, or lower --learning-rate",
                )

    def _judge_steps(self) -> None:
        if self._tokens and self.policy_trains:
            self._shares.append(self._outside / self._tokens)
        self._outside = self._tokens = 0.0
        if len(self._shares) < _WINDOW or not self.repeats:
            return
        share = sum(self._shares) / _WINDOW
        if share > _MANY_CLIPPED:
            self._warn(
                "wild",
                f"{share:.0%} of the ratios were clipped in {_WINDOW} iterations, more than "
                f"{_MANY_CLIPPED:.0%}: steps are too large for the samples; lower --learning-rate "
                "or the passes over an iteration's answers, or raise --episodes",
            )
        # Judged once, while the rate is high: later it decays, and nothing is clipped.
        if not self._judged_clipping and share < _FEW_CLIPPED:
            self._warn(
                "still",
                f"{share:.2%} of the ratios were clipped in {_WINDOW} iterations, less than "
                f"{_FEW_CLIPPED:.0%}: the policy could move faster; raise --learning-rate or the "
                "passes over an iteration's answers",
            )
        self._judged_clipping = True

    def _warn(self, what: str, sentence: str) -> None:
        if what not in self._said:
            self._said.add(what)
            self._say(f"{self.stage}: {sentence}")


def _pooled(ends: Sequence[tuple[float, int]]) -> tuple[float, int]:
    """The share over several (share, number of prompts), and the total number of prompts."""
    prompts = sum(count for _, count in ends)
    return sum(share * count for share, count in ends) / prompts, prompts
