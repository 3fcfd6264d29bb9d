"""What the tests of other rooms train: for each network data that are there, and sizes that take seconds."""

from pathlib import Path

from {{cookiecutter.__package_name}}.model.settings import LOCATIONS, DataSettings, ModelSettings

HERE = Path(__file__).parent / "proteins"


def table(name: str) -> DataSettings:
    """Read a small table for training and testing alike."""
    file = str(HERE / f"{name}.csv")
    return DataSettings(train_file=file, test_file=file, validation_size=40)


DATA = {
    "masked": table("locations"),
    "sequence_classifier": table("locations"),
    "sequence_regressor": table("values"),
    "residue_classifier": table("residues"),
    "residue_regressor": table("residue_values"),
}
MODEL = ModelSettings(
    num_layers=2,
    hidden_size=16,
    num_attention_heads=4,
    ffn_hidden_size=32,
    max_length=48,
    hidden_dropout=0.0,
    classes=list(LOCATIONS),
)
