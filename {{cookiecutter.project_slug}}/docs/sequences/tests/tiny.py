"""What the tests of other rooms train: data for each network, and sizes with which a run takes seconds."""

from {{cookiecutter.__package_name}}.model.settings import DataSettings, ModelSettings

FEW = DataSettings(num_proteins=500, validation_size=100)  # validation: three global batches and a tail
DATA = {"masked": FEW, "family": FEW}
MODEL = ModelSettings(num_layers=2, hidden_size=16, ffn_hidden_size=32)
