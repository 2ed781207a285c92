"""Puts the learner's shares into fine-tuning."""

from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from types import ModuleType

from groundup.learn.plain import all_replaced
from groundup.tune import data
from groundup.tune.config import SFTConfig

USED_BY = "sft with several --data or --replay: how many tokens each source gives"


def swap(part: ModuleType) -> AbstractContextManager[None]:
    """Where nothing is weighed and nothing replayed, all data are taken as they come."""

    def weights(
        config: SFTConfig, replay: float, sizes: Mapping[str, int]
    ) -> dict[str, float] | None:
        if config.weights is None and not replay:
            return None
        given = config.weights or [float(size) for size in sizes.values()]
        own = dict(zip(sizes, given, strict=True))
        shares: dict[str, float] = part.token_shares(
            own, [str(at) for at in config.replay_data], replay
        )
        return shares

    return all_replaced((data, "_weights", weights))


def try_it() -> list[float]:
    """The shares of two sources of one's own and one of general text."""
    config = SFTConfig(
        model=Path("model"),
        data=(Path("letters"), Path("notes")),
        weights=(3.0, 1.0),
        replay=0.1,
        replay_data=(Path("web"),),
        out=Path("out"),
    )
    shares = data._weights(config, 0.1, {"letters": 5, "notes": 7})
    assert shares is not None
    return [shares[name] for name in sorted(shares)]
