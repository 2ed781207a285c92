"""Numbers with intervals."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest

from groundup.report.claim import Claim
from groundup.report.estimate import (
    Estimate,
    mean_change,
    rate,
    ratio,
    share,
    unpaired_change,
    with_spread,
)


def test_answers_in_one_group_widen_the_interval() -> None:
    """40 copies of 5 answers have the information of the 5."""
    values = np.repeat([1.0, 0.0, 1.0, 1.0, 0.0], 40)
    together = ratio(values, groups=[f"prompt {i // 40}" for i in range(200)])
    alone = ratio(values)
    assert (together.items, together.groups, alone.groups) == (200, 5, 200)
    assert together.high - together.low > 3 * (alone.high - alone.low)


def test_a_share_of_zero_has_an_interval() -> None:
    found = share(0, 20)
    assert found.estimate == 0
    assert found.low == 0
    # Wilson by hand: z^2 / (n + z^2).
    assert found.high == pytest.approx(1.959964**2 / (20 + 1.959964**2), abs=1e-6)


def test_json_has_a_chance_level_only_if_there_is_one() -> None:
    without = Estimate(0.5, 0.4, 0.6, 10, 10).to_json()
    assert "chance" not in without
    assert Estimate(**without).chance is None
    assert Estimate(0.5, 0.4, 0.6, 10, 10, 0.25).to_json()["chance"] == 0.25


def test_a_rate_of_equal_items_has_a_width() -> None:
    alone = rate(np.ones(40))
    assert alone == share(40, 40)
    in_groups = rate(np.ones(40), groups=[i // 4 for i in range(40)])
    assert (in_groups.items, in_groups.groups) == (40, 10)
    assert in_groups.low == share(10, 10).low < alone.low


def test_a_rate_of_groups_is_less_certain_than_one_of_independent_items() -> None:
    values = np.repeat([1.0, 1.0, 0.0, 1.0], 10)
    alone, in_groups = rate(values), rate(values, groups=np.repeat(range(4), 10).tolist())
    assert in_groups.estimate == alone.estimate == 0.75
    assert in_groups.low < alone.low


def test_a_gain_without_changed_items_has_a_width() -> None:
    half, all_right = np.tile([0.0, 1.0], 20), np.ones(40)
    for values in (half, all_right):
        found = mean_change(values, values)
        assert found.low < 0 < found.high and found.low == pytest.approx(-found.high, abs=0.2)
    # All that turned, turned alike: as far apart as two shares of so many are by Newcombe.
    assert (
        mean_change(all_right, np.zeros(40)).estimate == 1
        and mean_change(all_right, 0 * half).low < 1
    )
    # Where only some changed, they are resampled.
    assert mean_change(all_right, half) == ratio(all_right - half)


def test_a_difference_without_spread_is_as_uncertain_as_the_two_numbers() -> None:
    all_of, none, drawn = share(30, 30), share(0, 30), Estimate(0.1, -0.1, 0.3, 30, 30)
    fixed = Estimate(-1.0, -1.0, -1.0, 30, 30)
    found = with_spread(
        {"turned": fixed, "drawn": drawn, "of no numbers": fixed},
        {"turned": none, "drawn": none},
        {"turned": all_of, "drawn": none},
    )
    assert found["turned"] == unpaired_change(none, all_of) and found["turned"].low == -1 < -0.8
    assert -0.9 < found["turned"].high < -0.8
    assert found["drawn"] == drawn and found["of no numbers"] == fixed


def test_the_distance_from_an_ideal_is_absolute() -> None:
    found = Estimate(0.3, 0.2, 0.6, 10, 10).distance(0.5)
    assert (found.estimate, found.low, found.high) == pytest.approx((0.2, 0.0, 0.3))


def test_a_decreasing_scale_swaps_the_bounds_and_has_no_chance() -> None:
    found = Estimate(0.2, -0.1, 0.6, 10, 5, chance=0.5)
    turned = found.mapped(lambda x: 1 - x)
    assert turned == Estimate(0.8, 0.4, 1.1, 10, 5)
    assert turned.within(0.0, 1.0) == replace(turned, high=1.0)
    assert found.within(0.0) == replace(found, low=0.0)


def test_a_single_group_is_resampled_by_item_for_ratios_and_is_one_trial_for_rates() -> None:
    values = np.repeat([0.0, 1.0], 10)
    found = ratio(values, groups=["all"] * 20)
    assert found == replace(ratio(values), groups=1) and found.low < 0.5 < found.high
    for count in (2, 10, 99):
        groups = ["all"] * count
        right, but_one, half = np.ones(count), np.ones(count), np.full(count, 0.75)
        but_one[0], half[0] = 0, 0.25
        whole = rate(right, groups=groups)
        assert (whole.low, whole.high) == (share(1, 1).low, share(1, 1).high)
        # So most that are right say no more than all of them, and of fractions the same holds.
        for values in (but_one, half):
            found = rate(values, groups=groups)
            assert (found.items, found.groups) == (count, 1)
            assert found.low < whole.low and found.low < 0.5 < found.high


def test_a_mean_of_fractions_has_the_bootstraps_width() -> None:
    """Shares of several answers are not binary: Wilson's interval would be far too wide."""
    values = 0.5 + 0.05 * np.sin(np.arange(40))
    found = rate(values)
    assert (found.low, found.high) == (ratio(values).low, ratio(values).high)
    assert found.high - found.low < 0.05 < share(20, 40).high - share(20, 40).low
    votes = np.repeat([0.0, 0.5, 1.0], 10)  # a tie counts half
    assert rate(votes).low == pytest.approx(share(15, 30).low)


def test_the_difference_of_two_shares_has_a_width_without_bootstrap_spread() -> None:
    """Newcombe (1998), table II, method 10: 56/70 against 48/80, and 10/10 against 0/10."""
    found = unpaired_change(share(56, 70), share(48, 80))
    assert (found.estimate, found.low, found.high) == pytest.approx((0.2, 0.0524, 0.3339), abs=5e-5)
    found = unpaired_change(share(10, 10), share(0, 10))
    assert (found.low, found.high) == pytest.approx((0.6075, 1.0), abs=5e-5)


def test_a_distance_begins_at_0_if_possible() -> None:
    for gap, low, high in (((0.02, -0.1, 0.14), 0, 0.14), ((-0.3, -0.4, -0.1), 0.1, 0.4)):
        found = Estimate(*gap, 10, 10).distance()
        assert (found.estimate, found.low, found.high) == (abs(gap[0]), low, high)


def test_groups_of_equal_means_have_an_interval() -> None:
    """Half of each pair is right: this has the information of 40 independent answers."""
    values, pairs = np.tile([1.0, 0.0], 20), [i // 2 for i in range(40)]
    found = rate(values, groups=pairs)
    assert (found.estimate, found.groups) == (0.5, 20)
    assert (found.low, found.high) == (share(20, 40).low, share(20, 40).high)


def test_a_first_wrong_answer_does_not_make_few_groups_certain() -> None:
    """Of 8 groups of 16: all are right, then one more answer in another group is wrong, and so on.

    What all of a group share can no longer be what is wrong, so the low end may rise at first.
    """
    groups, lows = [i // 16 for i in range(128)], []
    for wrong in range(9):
        values = np.ones(128)
        values[: 16 * wrong : 16] = 0
        found = rate(values, groups=groups)
        assert 0 <= found.low < found.estimate <= found.high <= 1
        turned = rate(1 - values, groups=groups)
        assert (turned.low, turned.high) == pytest.approx((1 - found.high, 1 - found.low))
        lows.append(found.low)
    assert lows[0] == share(8, 8).low
    assert lows[1] < 0.8
    assert max(abs(one - other) for one, other in itertools.pairwise(lows)) < 0.11


@pytest.mark.parametrize(
    ("groups", "size", "right", "alike"),
    [
        (6, 10, 0.9, 0.3),
        (8, 14, 0.8, 0.3),
        (8, 16, 0.95, 0.1),
        (13, 8, 0.8, 0.3),
        (30, 4, 0.9, 0.3),
        (50, 2, 0.92, 0.3),
        (100, 2, 0.02, 0.2),
    ],
)
def test_intervals_of_rates_have_their_stated_coverage(
    groups: int, size: int, right: float, alike: float
) -> None:
    """Groups of about `size`, each with its own share; `alike` is their correlation."""
    random = np.random.default_rng(0)
    held, many = 0, 600
    for _ in range(many):
        sizes = 1 + random.poisson(size - 1, groups)
        strength = 1 / alike - 1
        shares = random.beta(right * strength, (1 - right) * strength, groups)
        values = (random.random(sizes.sum()) < np.repeat(shares, sizes)).astype(float)
        found = rate(values, groups=np.repeat(np.arange(groups), sizes).tolist())
        held += found.low <= right <= found.high
    assert held / many > 0.935


@pytest.mark.parametrize("groups", [6, 8, 13, 25, 50])
def test_null_differences_pass_at_the_stated_rate(groups: int) -> None:
    """Equal numbers of answers improved and worsened, but independently in each group."""
    random = np.random.default_rng(1)
    told, many = 0, 600
    for _ in range(many):
        sizes = 1 + random.poisson(7, groups)
        by = np.repeat(np.tanh(random.normal(0, 0.9, groups)), sizes)
        changed = random.random(len(by)) < 0.2
        values = np.where(random.random(len(by)) < (1 + by) / 2, 1.0, -1.0) * changed
        change = ratio(values, groups=np.repeat(np.arange(groups), sizes).tolist())
        told += Claim("", change, "", "above").outcome != "not significant"
    assert told / many < 0.07
