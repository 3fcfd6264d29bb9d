"""`python -m <package>` is the same as the installed command."""

import sys

from .cli import main

sys.exit(main())
