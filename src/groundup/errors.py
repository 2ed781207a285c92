"""What a person gave us that cannot work, said in one clear sentence."""

from __future__ import annotations


class UserError(Exception):
    """A wrong input: the message names the value, the rule it breaks and the remedy.

    The command line prints the message alone and exits with code 2; library callers catch it
    like any exception. Our own broken invariants are `assert`s and never this class.
    """


class CheckFailed(Exception):
    """Something was compared as asked, and differs: no wrong input, but no success either.

    The command line prints the message and exits with code 1.
    """
