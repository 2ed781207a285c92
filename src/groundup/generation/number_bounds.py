"""Numbers within bounds as automata: minimum, maximum, exclusive bounds, and multipleOf.

The automaton reads a number digit by digit. Its state says how the digits so far compare with the
first digits of each bound, and their remainder:

    remainder(digits + digit) = (10 * remainder(digits) + digit) mod divisor

Bounded numbers have no exponent and at most 15 digits, which float64 distinguishes, so a number
below a bound is below it for every reader. Zero has no sign. Multiples have no more decimals than
their divisor.

Source: json-schema.org/draft/2020-12, Validation, section 6.2; Hopcroft and Ullman 1979, chapter 2.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from functools import lru_cache
from typing import NamedTuple

from groundup.errors import UserError
from groundup.generation.grammar import Automaton, Characters, letters
from groundup.generation.json_values import DIGITS

# A state takes a tenth of a millisecond and 1 kB.
_MAX_STATES = 10_000


@dataclass(frozen=True)
class Bounds:
    """The bounds of a number (None: no bound), whether each is excluded, and its divisor."""

    is_integer: bool
    least: Decimal | None = None
    most: Decimal | None = None
    least_excluded: bool = False
    most_excluded: bool = False
    multiple_of: Decimal | None = None

    def allow(self, number: Decimal) -> bool:
        """Whether a number is within the bounds and a multiple of the divisor."""
        least, most, multiple = self.least, self.most, self.multiple_of
        return (
            (least is None or number > least or (number == least and not self.least_excluded))
            and (most is None or number < most or (number == most and not self.most_excluded))
            and (multiple is None or (Fraction(number) / Fraction(multiple)).denominator == 1)
        )


@lru_cache(64)
def bounded_number(bounds: Bounds) -> Automaton:
    """The automaton of the numbers within bounds.

    Raises `UserError` for a divisor that takes too many states.
    """
    reader = _Reader(bounds)
    rows, todo = list[list[tuple[Characters, int]]](), deque([_BEGIN])
    known = {_BEGIN: 0}
    while todo:
        row = dict[int, str]()
        for character, then in reader.following(todo.popleft()):
            if then not in known:
                known[then] = len(known)
                todo.append(then)
            row[known[then]] = row.get(known[then], "") + character
        rows.append([(letters(some), then) for then, some in row.items()])
        if len(known) > _MAX_STATES:
            raise UserError(
                f"takes more than {_MAX_STATES:,} states; ask for a multiple of a number of fewer "
                "digits"
            )
    return Automaton(rows, frozenset(known[one] for one in known if reader.may_end(one)))


class _State(NamedTuple):
    """What the digits so far determine: the numbers of digits before the point and after it (None
    before the point), their comparison with the lower and the upper bound, and the remainder."""

    is_negative: bool = False
    whole: int = 0
    decimals: int | None = None
    is_zero: bool = True
    least: int = 0
    most: int = 0
    remainder: int = 0


_BEGIN = _State()


class _Bound:
    """The absolute value of a bound. Comparisons are -1, 0 or 1, for less, equal and greater."""

    def __init__(self, bound: Decimal, is_excluded: bool) -> None:
        self.is_excluded = is_excluded
        whole, _, decimals = f"{bound:f}".partition(".")
        self._whole, self._decimals = whole.lstrip("0") or "0", decimals.rstrip("0")

    def compare(self, before: int, digit: int, place: int, *, is_decimal: bool) -> int:
        """Compare the digits, after one more, with the first digits of the bound."""
        digits = self._decimals if is_decimal else self._whole
        own = int(digits[place]) if place < len(digits) else 0
        return before or (digit > own) - (digit < own)

    def compare_whole(self, before: int, whole: int) -> int:
        """Compare an integer part of `whole` digits with that of the bound: first by length."""
        size = len(self._whole)
        return (whole > size) - (whole < size) or before

    def compare_end(self, state: _State, before: int) -> int:
        """Compare a number that ends here with the bound."""
        if state.decimals is None:
            before = self.compare_whole(before, state.whole)
        return before or -bool(self._decimals[state.decimals or 0 :])


class _Reader:
    """The transitions between the states, and the states in which a number may end."""

    def __init__(self, bounds: Bounds) -> None:
        self._most_decimals = 0 if bounds.is_integer else DIGITS
        self._multiple, self._shift = 1, 0
        if bounds.multiple_of is not None:
            # A multiple of 0.05 is a multiple of 5 in hundredths; an integer multiple of 1.5 is a
            # multiple of 3.
            numerator, denominator = bounds.multiple_of.as_integer_ratio()
            self._multiple = numerator
            if not bounds.is_integer:
                exponent = bounds.multiple_of.normalize().as_tuple().exponent
                self._shift = max(0, -int(exponent))
                self._multiple = numerator * 10**self._shift // denominator
                self._most_decimals = min(self._shift, DIGITS)
        self._powers = [10**n for n in range(max(self._shift, len(str(self._multiple))) + 1)]
        self._classes: dict[tuple[int, ...], int] = {}
        self._residues: dict[int, int] = {}
        least, most = bounds.least, bounds.most
        positive = self._bounds(least, bounds.least_excluded, most, bounds.most_excluded)
        negative = self._bounds(
            None if most is None else most.copy_negate(),
            bounds.most_excluded,
            None if least is None else least.copy_negate(),
            bounds.least_excluded,
        )
        self._of_sign = {False: positive, True: negative}

    @staticmethod
    def _bounds(
        least: Decimal | None, least_excluded: bool, most: Decimal | None, most_excluded: bool
    ) -> tuple[_Bound, _Bound] | None:
        """The bounds of the absolute values of one sign; None if this sign has no numbers."""
        if most is not None and most < 0:
            return None
        if least is None or least < 0:
            least, least_excluded = Decimal(0), False
        if most is None:
            most = Decimal(10**DIGITS)
        # A negated zero has a sign.
        return _Bound(least.copy_abs(), least_excluded), _Bound(most.copy_abs(), most_excluded)

    def following(self, state: _State) -> Iterator[tuple[str, _State]]:
        """The characters that may come next, each with the state after it."""
        bounds = self._of_sign[state.is_negative]
        if state == _BEGIN and self._of_sign[True] is not None:
            yield "-", state._replace(is_negative=True)
        if bounds is None:
            return
        least, most = bounds
        is_decimal = state.decimals is not None
        digits = state.whole + (state.decimals or 0)
        if not is_decimal and state.whole and digits < DIGITS and self._most_decimals:
            after = state._replace(
                decimals=0,
                least=least.compare_whole(state.least, state.whole),
                most=most.compare_whole(state.most, state.whole),
            )
            if after.least >= 0 and after.most <= 0:
                yield ".", after
        if digits == DIGITS or (is_decimal and state.decimals == self._most_decimals):
            return
        if not is_decimal and state.whole and state.is_zero:
            return  # No digit follows a leading zero.
        place = (state.decimals if is_decimal else state.whole) or 0
        for digit in range(10):
            after = _State(
                state.is_negative,
                state.whole + (not is_decimal),
                place + 1 if is_decimal else None,
                state.is_zero and digit == 0,
                least.compare(state.least, digit, place, is_decimal=is_decimal),
                most.compare(state.most, digit, place, is_decimal=is_decimal),
                self._residue(10 * state.remainder + digit),
            )
            if is_decimal and (after.least < 0 or after.most > 0):
                continue
            if most.compare_whole(after.most, after.whole) > 0 and not is_decimal:
                continue
            yield str(digit), after

    def _residue(self, number: int) -> int:
        """A representative of the numbers that the same digits complete to a multiple.

        For a multiple of 1000, these digits are "000" after 5 and after 15. Two numbers are
        equivalent if for every n the same n digits (-1: none) complete them.
        """
        number %= self._multiple
        if number not in self._residues:
            rests = [(-number * power % self._multiple, power) for power in self._powers]
            key = tuple(rest if rest < power else -1 for rest, power in rests)
            self._residues[number] = self._classes.setdefault(key, number)
        return self._residues[number]

    def may_end(self, state: _State) -> bool:
        bounds = self._of_sign[state.is_negative]
        if bounds is None or not state.whole or state.decimals == 0:
            return False
        least, most = bounds
        above, below = least.compare_end(state, state.least), most.compare_end(state, state.most)
        shifted = state.remainder * 10 ** (self._shift - (state.decimals or 0))
        return (
            not (state.is_negative and state.is_zero)
            and (above > 0 or (above == 0 and not least.is_excluded))
            and (below < 0 or (below == 0 and not most.is_excluded))
            and (self._multiple == 1 or shifted % self._multiple == 0)
        )
