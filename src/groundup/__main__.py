"""Entry point of `groundup` and `python -m groundup`.

Importing the command line takes a good part of a second, so Ctrl-C is handled before it.
"""

from __future__ import annotations

import sys


def main() -> int:
    """Run the command of this process and return its exit code."""
    from groundup.app.process import is_own, prepare

    own = is_own()
    if own:
        prepare()
    from groundup.app.cli import main
    from groundup.runs import ranks

    code = main(None if own else sys.argv[1:])
    ranks.shutdown(code)
    return code


if __name__ == "__main__":
    sys.exit(main())
