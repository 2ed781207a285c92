"""`groundup`, and `python -m groundup`: what stands before the command line itself.

Loading it takes a good part of a second, in which Ctrl-C must find a process that knows what to do.
"""

from __future__ import annotations

import sys


def main() -> int:
    """Run the command of this process and return its exit code."""
    from groundup.app.process import prepare

    prepare()
    from groundup.app.cli import main
    from groundup.runs import ranks

    code = main()
    ranks.leave(code)
    return code


if __name__ == "__main__":
    sys.exit(main())
