"""Bradley-Terry ratings against closed forms, another optimizer and known truth."""

from __future__ import annotations

from math import inf, log

import numpy as np
import pytest
from scipy.optimize import minimize

from groundup.align.bradley_terry import ELO, bradley_terry, compared, rate


def wins(*rows: list[float]) -> np.ndarray:
    return np.array(rows, float)


@pytest.mark.parametrize(("won", "lost"), [(7, 3), (1, 99), (5, 5), (2.5, 1.5), (999, 1)])
def test_two_players_rate_as_the_log_odds(won: float, lost: float) -> None:
    first, second = bradley_terry(wins([0, won], [lost, 0]))
    assert first == 0 and second == pytest.approx(log(lost / won), abs=1e-9)


def by_another_optimizer(counts: np.ndarray) -> np.ndarray:
    def loss(others: np.ndarray) -> float:
        ratings = np.concatenate([[0.0], others])
        margins = ratings[:, None] - ratings[None, :]
        return float((counts * np.logaddexp(0, -margins)).sum())

    start = np.zeros(len(counts) - 1)
    found = minimize(loss, start, method="BFGS", options={"gtol": 1e-9})
    return np.concatenate([[0.0], found.x])


def test_many_players_rate_as_with_another_optimizer() -> None:
    dice = np.random.default_rng(0)
    for _ in range(60):
        n = int(dice.integers(3, 7))
        # From a few votes to thousands, some pairs never compared.
        counts = dice.integers(1, 9, (n, n)) * 10 ** dice.uniform(0, 2, (n, n))
        apart = np.triu(dice.random((n, n)) < 0.2, 2)
        counts[apart | apart.T | np.eye(n, dtype=bool)] = 0
        assert bradley_terry(counts) == pytest.approx(by_another_optimizer(counts), abs=1e-5)


def test_batched_logs_equal_single_ones() -> None:
    logs = np.random.default_rng(1).integers(1, 20, (50, 4, 4)).astype(float)
    alone = np.stack([bradley_terry(one) for one in logs])
    assert np.allclose(bradley_terry(logs), alone, atol=1e-9)


def test_a_player_with_only_wins_or_losses_has_an_infinite_rating() -> None:
    assert bradley_terry(wins([0, 0], [7, 0])).tolist() == [0, inf]
    assert bradley_terry(wins([0, 7], [0, 0])).tolist() == [0, -inf]
    # The other two are rated as if the third were not there.
    ratings = bradley_terry(wins([0, 7, 5], [3, 0, 2], [0, 0, 0]))
    assert ratings[1] == pytest.approx(log(3 / 7)) and ratings[2] == -inf
    # Two of four always beat the other two.
    two_and_two = wins([0, 3, 4, 4], [1, 0, 4, 4], [0, 0, 0, 3], [0, 0, 1, 0])
    ratings = bradley_terry(two_and_two)
    assert ratings[1] == pytest.approx(log(1 / 3)) and ratings[2:].tolist() == [-inf, -inf]


def test_a_rating_may_be_large_but_finite() -> None:
    """A ladder of players, each of whom wins 99 of 100 against the next."""
    ladder = np.zeros((6, 6))
    for i in range(5):
        ladder[i, i + 1], ladder[i + 1, i] = 99, 1
    assert bradley_terry(ladder) == pytest.approx(-log(99) * np.arange(6), abs=1e-6)


def test_players_without_a_connection_are_not_ranked() -> None:
    """Nothing compares the first and the third, who both lost to the second."""
    lost = wins([0, 0, 0], [4, 0, 9], [0, 0, 0])
    ratings = bradley_terry(lost)
    assert ratings[1] == inf and np.isfinite(ratings[2])
    assert compared(lost).tolist() == [True, True, False]


def test_players_never_compared_with_the_first_are_rated() -> None:
    apart = wins([0, 1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 3], [0, 0, 1, 0])
    assert compared(apart).tolist() == [True, True, False, False]
    assert np.isfinite(bradley_terry(apart)).all()
    assert compared(wins([0, 1, 0], [0, 0, 1], [0, 0, 0])).tolist() == [True] * 3


def drawn(truth: np.ndarray, votes: int, seed: int) -> np.ndarray:
    """Votes on as many prompts by players of these ratings."""
    dice = np.random.default_rng(seed)
    matches = np.zeros((votes, len(truth), len(truth)))
    for match in matches:
        i, j = dice.choice(len(truth), 2, replace=False)
        first = dice.random() < 1 / (1 + np.exp(truth[j] - truth[i]))
        match[(i, j) if first else (j, i)] = 1
    return matches


def test_the_intervals_have_about_their_stated_coverage() -> None:
    truth = np.array([0.0, 0.8, -0.5])
    logs = [drawn(truth, 200, seed) for seed in range(100)]
    hits = [[one.low <= r <= one.high for one, r in zip(rate(m), truth, strict=True)] for m in logs]
    for share in np.mean(hits, axis=0)[1:]:
        assert 0.88 <= share <= 1
    assert np.all(np.array(hits)[:, 0])


def test_votes_on_one_prompt_are_resampled_together() -> None:
    votes = drawn(np.array([0.0, 0.5]), 240, 0)
    alone, by_prompt = rate(votes)[1], rate(votes.reshape(12, 20, 2, 2).sum(1))[1]
    assert alone.estimate == pytest.approx(by_prompt.estimate)
    # The same vote given twenty times over is one vote.
    repeated = np.repeat(drawn(np.array([0.0, 0.5]), 12, 3), 20, axis=0)
    grouped = repeated.reshape(12, 20, 2, 2).sum(1)
    narrow, honest = rate(repeated)[1], rate(grouped)[1]
    assert honest.high - honest.low > 3 * (narrow.high - narrow.low)


def test_samples_without_a_players_prompts_are_ignored_for_it() -> None:
    """The third player won 19 of 20 on each of a few prompts; the second played on all of them."""
    for few in (1, 2, 8):
        matches = np.zeros((40, 3, 3))
        matches[:, 0, 1], matches[:, 1, 0] = 2, 1
        matches[:few, 2, 0], matches[:few, 0, 2] = 19, 1
        # Others won 18 of 19, and 1 of 2.
        matches[0, 2, 0], matches[0, 1, 0] = 18, 2
        _, second, third = rate(matches)
        assert third.estimate == pytest.approx(log((19 * few - 1) / few), abs=1e-6)
        assert log(1 / 2) <= second.low < second.estimate < second.high < log(1 / 2) + 0.1
        # Without all of them are (1 - few / 40)^40 of the samples: 36 %, 13 %, 0.01 %.
        if few < 8:
            assert (third.low, third.high) == (-inf, inf)
        else:
            assert log(18) <= third.low < third.estimate < third.high <= log(19) + 1e-6


def test_unanimous_samples_give_unbounded_intervals() -> None:
    ties, lost = np.zeros((3, 3, 3)), np.zeros((3, 3, 3))
    ties[:] = 0.5 * (1 - np.eye(3))
    lost[:, 0, 1:] = lost[:, 1, 2] = 1
    for matches, estimate in ((ties, 0), (lost, -inf)):
        first, *others = rate(matches)
        assert (first.low, first.estimate, first.high) == (0, 0, 0)
        for one in others:
            assert (one.low, one.estimate, one.high) == (-inf, estimate, inf)


def test_a_hundred_elo_points_have_the_stated_win_rate() -> None:
    assert 1 / (1 + np.exp(-100 / ELO)) == pytest.approx(0.64, abs=0.001)
