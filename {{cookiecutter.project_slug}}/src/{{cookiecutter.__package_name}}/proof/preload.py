"""What every process of `ranks.py` has in memory from its first moment: its server imports this once, and forks."""

import os

from ..runtime import noise

os.environ["PYTORCH_NVML_BASED_CUDA_CHECK"] = "1"  # the libraries ask for GPUs while imported; CUDA's answer bars forks
noise.quiet()

from ..training import train  # noqa: E402, F401 (quiet first: the libraries speak while they are imported)
