"""The tests are the same wherever they are run: in a job of a cluster, under a launcher, in a narrow terminal."""

import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ENVIRONMENT

RANK = {"RANK": "1", "LOCAL_RANK": "1", "NODE_RANK": "1", "WORLD_SIZE": "2", "MASTER_PORT": "1"}
JOB = {"SLURM_JOB_ID": "7", "SLURM_NTASKS": "2", "SLURM_PROCID": "1", "SLURM_JOB_NAME": "x"}
MPI = {"OMPI_COMM_WORLD_RANK": "1", "OMPI_COMM_WORLD_SIZE": "2", "PMI_RANK": "1", "PMI_SIZE": "2"}
SHELL = {"COLUMNS": "20", "LC_ALL": "C", "PYTHONWARNINGS": "always", "PYTHONUNBUFFERED": "1", "TERM": "dumb"}
TESTS = ("tests/test_lacking.py::test_a_file_that_the_model_lacks_is_one_line", "tests/runtime/test_launch.py")


@pytest.mark.slow
def test_what_is_in_the_environment_changes_no_test():
    words = [sys.executable, "-m", "pytest", "-q", "-m", "not slow", "-p", "no:cacheprovider", *TESTS]
    folder, env = Path(__file__).parents[1], {**ENVIRONMENT, **RANK, **JOB, **MPI, **SHELL}
    done = subprocess.run(words, cwd=folder, env=env, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stdout
