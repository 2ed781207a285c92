"""A reward that fails once, as a service may, costs a run none of its progress."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from groundup.align.config import GRPOConfig, PPOConfig, RolloutConfig
from groundup.align.rollout import Rollout
from groundup.errors import UserError
from rollouts import length_reward, small_config, small_policy, train

EXACT = ("kind", "step", "loss", "reward", "kl", "gradient_norm")


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        (PPOConfig, {}),
        (PPOConfig, {"kl_stop": 1e-9}),  # iterations that end early
        (GRPOConfig, {"group_size": 4}),
    ],
)
def test_progress_before_the_failure_is_kept(
    tmp_path: Path, kind: type[RolloutConfig], changes: dict[str, Any]
) -> None:
    changes = {"iterations": 4, "evaluations": 1, **changes}
    whole, calls = small_policy(), list[int]()

    def counting(rollouts: Sequence[Rollout], /) -> list[float]:
        calls.append(len(rollouts))
        return length_reward(rollouts)

    expected = train(small_config(kind, tmp_path / "whole", **changes), whole, counting)
    # The rewards of the iterations; there are fewer held-out ones.
    failing = [place for place, count in enumerate(calls) if count == max(calls)][-1]
    asked = 0

    def flaky(rollouts: Sequence[Rollout], /) -> list[float]:
        nonlocal asked
        asked += 1
        if asked == failing + 1:
            raise UserError("the service does not answer")
        return length_reward(rollouts)

    config = small_config(kind, tmp_path / "flaky", **changes)
    with pytest.raises(UserError, match=r"does not answer; saved at step (\d+) of") as told:
        train(config, small_policy(), flaky)
    [saved] = (tmp_path / "flaky" / "checkpoints").glob("step-*")
    assert f"saved at step {saved.name.removeprefix('step-')} of" in str(told.value)
    again = small_policy()
    lines = train(config, again, flaky)
    assert [[line.get(key) for key in EXACT] for line in lines] == [
        [line.get(key) for key in EXACT] for line in expected
    ]
    for name, parameter in again.named_parameters():
        assert torch.equal(parameter, whole.get_parameter(name))


def test_a_reward_that_always_fails_leaves_no_checkpoint(tmp_path: Path) -> None:
    def broken(rollouts: Sequence[Rollout], /) -> list[float]:
        raise UserError("the service does not answer")

    with pytest.raises(UserError) as told:
        train(small_config(GRPOConfig, tmp_path, group_size=4), small_policy(), broken)
    assert str(told.value) == "the service does not answer"
