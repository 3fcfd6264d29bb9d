"""What every process of `ranks.py` has in memory from its first moment: its server imports this once, and forks."""

from ..runtime import noise

noise.quiet()

from .. import training  # noqa: E402, F401 (quiet first: the libraries speak while they are imported)
