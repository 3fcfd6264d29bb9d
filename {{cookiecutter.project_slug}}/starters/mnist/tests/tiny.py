"""What the tests of other rooms train: for each network data that are there, and sizes that take seconds."""

from {{cookiecutter.__package_name}}.model.settings import DataSettings, ModelSettings

DATA = dict.fromkeys(("autoencoder", "classifier", "autoencoder_classifier"), DataSettings(validation_size=100))
MODEL = ModelSettings(num_layers=2, hidden_size=16, ffn_hidden_size=32, latent_size=8)
