"""Writes noisy waves of eight frequencies, from a seed: into data/waves, and a few for the tests."""

from pathlib import Path

import numpy as np


def make(size: int, seed: int) -> dict[str, np.ndarray]:
    """Return `size` waves, float32 [size, 64, 3], with frequency (0 is one period) and amplitude in volts."""
    random = np.random.default_rng(seed)
    frequency = random.integers(0, 8, size)
    amplitude = random.uniform(0.5, 2.0, size)
    phase = random.uniform(0, 2 * np.pi, (size, 1, 3))
    time = np.arange(64)[:, np.newaxis] / 64
    wave = amplitude[:, None, None] * np.sin(2 * np.pi * (frequency[:, None, None] + 1) * time + phase)
    wave += random.normal(0, 0.5, wave.shape)
    return {"wave": wave.astype(np.float32), "frequency": frequency, "amplitude": amplitude.astype(np.float32)}


def write(folder: Path, train: int, test: int) -> None:
    """Write train.npz and test.npz, of so many waves."""
    folder.mkdir(parents=True, exist_ok=True)
    np.savez(folder / "train.npz", **make(train, seed=1))
    np.savez(folder / "test.npz", **make(test, seed=2))


if __name__ == "__main__":
    write(Path("data", "waves"), train=4_000, test=1_012)
    write(Path("tests", "model", "waves"), train=400, test=112)
