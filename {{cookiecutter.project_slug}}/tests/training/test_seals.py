"""Checkpoints without a seal: a copy may lose it, a kill never leaves one so; no run goes back behind them unasked."""

from collections.abc import Callable
from pathlib import Path

import in_ranks
import pytest

from {{cookiecutter.__package_name}}.contracts.errors import UserError
from {{cookiecutter.__package_name}}.contracts.names import CHECKPOINTS_FOLDER
from {{cookiecutter.__package_name}}.model.settings import Settings
from {{cookiecutter.__package_name}}.proof.ranks import run_ranks
from {{cookiecutter.__package_name}}.results.evaluate import evaluate
from {{cookiecutter.__package_name}}.runtime.seal import SEAL
from {{cookiecutter.__package_name}}.training.train import train

pytestmark = pytest.mark.slow

STEPS = {"max_steps": 4, "val_check_interval": 2}


def between_files(settings: Settings) -> tuple[int, list[str]]:
    [found] = run_ranks(in_ranks.between_files, settings, processes=1, logs=Path(f"{settings.run_dir}-logs"))
    return found


def test_at_no_moment_of_a_training_is_a_checkpoint_without_seal_and_marker(tiny: Callable[..., Settings]) -> None:
    """Also not while one makes room for that of a step that is trained again, or is removed as damaged."""
    settings = tiny(training=STEPS)
    moments, found = between_files(settings)
    assert moments > 50 and found == []
    for checkpoint in Path(settings.run_dir, CHECKPOINTS_FOLDER).glob("step=4-*"):
        (checkpoint / SEAL).write_text("junk")
    moments, found = between_files(tiny(resume=True, training={**STEPS, "max_steps": 6}))
    assert moments > 50 and found == []


def test_a_run_whose_checkpoints_lost_their_seals_does_not_silently_start_anew(
    tiny: Callable[..., Settings],
) -> None:
    settings = tiny(training=STEPS)
    train(settings)
    for seal in Path(settings.run_dir).rglob(SEAL):
        seal.unlink()
    with pytest.raises(UserError, match=r"step=4-last.* lost files.json, .* delete these folders to go on from step 0"):
        train(tiny(resume=True, training={**STEPS, "max_steps": 6}))
    with pytest.raises(UserError, match=r"checkpoint .*step=4-val_loss=\S+ lost files.json"):
        evaluate(settings)
