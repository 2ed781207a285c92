"""2.8 A recurrent network.

The lesson: groundup learn 2.8        Check it: groundup learn check 2.8
"""

from groundup.maths import Tensor, stack


def step(
    x: Tensor,
    h: Tensor,
    w_ih: Tensor,
    w_hh: Tensor,
    b_ih: Tensor | None,
    b_hh: Tensor | None,
) -> Tensor:
    """Return the new state (n, hidden) from x (n, in) and the old one, h (n, hidden)."""
    raise NotImplementedError


def rnn(
    x: Tensor,
    h: Tensor,
    w_ih: Tensor,
    w_hh: Tensor,
    b_ih: Tensor | None,
    b_hh: Tensor | None,
) -> Tensor:
    """Return the states after every step, (time, n, hidden), for x (time, n, in)."""
    raise NotImplementedError
