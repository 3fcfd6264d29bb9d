"""Where every command comes in, installed or as `python -m <package>`. `model/settings.py` is looked at first.

The command line is made of what it says, and so cannot tell what is wrong with it.
"""

from __future__ import annotations

import sys

from .contracts.errors import UserError, imports_of_model, need_files
from .contracts.settings_check import check_settings
from .saying import complain, screens


def main(argv: list[str] | None = None) -> int:
    """Run a command and return its exit code.

    Args:
        argv: the words after the program's name; None for those of this process.

    Returns:
        2 for a mistake in `model/settings.py`, which is one line on stderr; else what `cli.main` returns.
    """
    try:
        with screens():
            need_files()
            with imports_of_model():
                from .model import settings
            check_settings(settings)
            from .cli import main as run

            return run(argv)
    except UserError as error:
        complain(str(error))
        return 2


if __name__ == "__main__":
    sys.exit(main())
