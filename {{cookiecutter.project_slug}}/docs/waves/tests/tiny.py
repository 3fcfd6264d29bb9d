"""What the tests of other rooms train: data for each network, and sizes with which a run takes seconds."""

from pathlib import Path

from {{cookiecutter.__package_name}}.model.settings import DataSettings, ModelSettings

DATA = {"waves": DataSettings(root=str(Path(__file__).parent / "waves"), validation_size=100)}
MODEL = ModelSettings(num_layers=2, hidden_size=16, ffn_hidden_size=32, latent_size=8)
