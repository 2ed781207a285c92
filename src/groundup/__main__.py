"""Entry point of `groundup` and `python -m groundup`.

Importing the command line takes a good part of a second, so Ctrl-C is handled before it.
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
    ranks.shutdown(code)
    return code


if __name__ == "__main__":
    sys.exit(main())
