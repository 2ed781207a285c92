"""The automata of bounded numbers agree with decimal arithmetic."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.generation.test_regular_expressions import accepts

from groundup.errors import UserError
from groundup.generation.number_bounds import Bounds, bounded_number

DECIMALS = st.integers(-1500, 1500).flatmap(
    lambda n: st.integers(0, 3).map(lambda places: Decimal(n).scaleb(-places))
)
MULTIPLES = st.sampled_from(
    ["1", "3", "7", "10", "64", "0.5", "0.25", "1.5", "0.05", "0.01", "1000"]
)


@settings(deadline=None, max_examples=300)
@given(
    is_integer=st.booleans(),
    least=st.none() | DECIMALS,
    most=st.none() | DECIMALS,
    excluded=st.tuples(st.booleans(), st.booleans()),
    multiple=st.none() | MULTIPLES.map(Decimal),
    near=st.lists(DECIMALS, min_size=9),
)
def test_numbers_are_accepted_if_they_are_within_their_bounds(
    is_integer: bool,
    least: Decimal | None,
    most: Decimal | None,
    excluded: tuple[bool, bool],
    multiple: Decimal | None,
    near: list[Decimal],
) -> None:
    automaton = bounded_number(Bounds(is_integer, least, most, *excluded, multiple))
    ends = [end + Decimal(by) for end in (least, most) if end is not None for by in (-1, 0, 1)]
    for number in (*near, *ends, Decimal(0)):
        text = f"{abs(number):f}" if number == 0 else f"{number:f}"
        is_within = (
            (least is None or number > least or (number == least and not excluded[0]))
            and (most is None or number < most or (number == most and not excluded[1]))
            and (multiple is None or number % multiple == 0)
        )
        if is_integer and "." in text:
            is_within = False
        if multiple is not None and "." in text:
            # A multiple has no more decimals than its divisor.
            decimals = len(text.partition(".")[2])
            is_within &= decimals <= -int(multiple.as_tuple().exponent)
        assert accepts(automaton, text) is is_within, text


@pytest.mark.parametrize(
    "text", ["-0", "-0.0", "00", "01", "1.", ".5", "+1", "1e5", "-", "", "1" * 16]
)
def test_other_spellings_are_not_bounded_numbers(text: str) -> None:
    assert not accepts(bounded_number(Bounds(False, most=Decimal(10**20))), text)


def test_numbers_below_a_bound_are_below_it_in_float64() -> None:
    """0.9999… with enough digits is 1 in float64."""
    automaton = bounded_number(Bounds(False, Decimal(0), Decimal(1), True, True))
    for count in range(1, 30):
        text = "0." + "9" * count
        assert accepts(automaton, text) is (count < 15)
        assert count >= 15 or float(text) < 1


@pytest.mark.parametrize("multiple", ["1000", "3600", "0.125", "2.5", "7e3"])
@settings(deadline=None, max_examples=100)
@given(factor=st.integers(-(10**9), 10**9), more=st.integers(0, 9999))
def test_multiples(multiple: str, factor: int, more: int) -> None:
    divisor = Decimal(multiple)
    bounded = {kind: bounded_number(Bounds(kind, multiple_of=divisor)) for kind in (False, True)}
    for number in (factor * divisor, factor * divisor + more, Decimal(more)):
        is_multiple = number % divisor == 0
        is_integer = number == number.to_integral_value()
        text = f"{number.normalize():f}"
        text = "0" if number == 0 else text
        assert accepts(bounded[False], text) is is_multiple, text
        assert accepts(bounded[True], text) is (is_multiple and is_integer), text


def test_a_multiple_of_too_many_states_is_refused() -> None:
    with pytest.raises(UserError, match="takes more than 10,000 states"):
        bounded_number(Bounds(True, multiple_of=Decimal(10**9 + 7)))
