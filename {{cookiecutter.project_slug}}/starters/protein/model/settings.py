"""What can be set about proteins and networks, and the defaults of each command (contracts/settings.py). No torch."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, Literal

from ..contracts import settings as base
from ..contracts.errors import UserError
from ..contracts.settings import PROOF, ParallelSettings, TrainingSettings
from .hugging_face.config import classes_of, network_of, read_config, sizes_of

LOCATIONS = ("cytoplasm", "nucleus", "secreted", "membrane", "mitochondrion", "plastid")
"""Where in a cell the proteins of the sample work: its classes."""

VOCABULARY_ROWS = 40
"""Rows of the embedding: 33 tokens, and padding that is never predicted. All tensor parallel sizes that divide ESM-2's
20 or 40 heads divide this too, and the weights are of one shape whatever it is."""


@dataclass(frozen=True)
class DataSettings(base.DataSettings):
    """Which proteins are read. FASTA files (also .gz) to pretrain with; CSV or TSV files to finetune with."""

    NOT_KEPT: ClassVar[tuple[str, ...]] = (
        *base.DataSettings.NOT_KEPT,
        "train_file",
        "validation_file",
        "test_file",
        "index_dir",
    )

    train_file: str | None = None
    """proteins to train with: FASTA, CSV or TSV, perhaps .gz; default: the sample in this package"""
    validation_file: str | None = None
    """proteins to validate with; default: the last of the training file, --data.validation_size of them"""
    test_file: str | None = None
    """proteins to test with and to predict; default: the sample's, if the training file is the sample too"""
    validation_size: int | None = None
    """proteins of the training file to validate with, if there is no validation file; default: a fifth, at most 800"""
    sequence_column: str = "sequence"
    """column of a CSV or TSV file that holds the sequences"""
    name_column: str = "name"
    """column that holds the names of the proteins; numbers if there is no such column"""
    label_column: str = "label"
    """column that holds the labels: a class or a number; for residues a list, a letter or a number a residue"""
    mask_column: str | None = None
    """column that says which residues have a label: 1 or 0 for each (residue networks only)"""
    pack: int = 0
    """pretraining: pack proteins into rows of so many tokens; 0: a row for each, padded to --model.max_length"""
    mask_probability: float = 0.15
    """pretraining: share of the residues that are to be guessed"""
    index_dir: str | None = None
    """folder for the index of each file; default: beside the file"""

    def problems(self) -> list[str]:
        """See the base class."""
        found = super().problems()
        if not 0 < self.mask_probability < 1:
            found.append(f"--data.mask_probability {self.mask_probability} must be above 0 and below 1")
        if self.pack < 0:
            found.append(f"--data.pack {self.pack} must be at least 0")
        return found


@dataclass(frozen=True)
class ModelSettings(base.ModelSettings):
    """The sizes of ESM-2, and its heads."""

    NOT_SPLIT: ClassVar[tuple[str, ...]] = ("num_layers", "max_length")
    OF_HEADS: ClassVar[tuple[str, ...]] = ("classes", "pooling")

    num_layers: int = 2
    """layers of the trunk, which pipeline stages share"""
    hidden_size: int = 64
    """features of each residue between layers"""
    num_attention_heads: int = 4
    """heads of each attention, which tensor parallel ranks share"""
    ffn_hidden_size: int = 256
    """features of each residue inside a layer's MLP"""
    hidden_dropout: float = 0.1
    """probability of zeroing a feature that a layer adds, during training; the released models have 0"""
    attention_dropout: float = 0.0
    """probability of not attending to a position during training"""
    layernorm_epsilon: float = 1e-5
    """added to the variance in every norm"""
    max_length: int = 128
    """tokens of the longest protein, with <cls> and <eos>; of a longer one a part is read"""
    classes: list[str] = field(default_factory=lambda: ["nucleus", "secreted"])
    """names of the classes, as the labels are written (classifiers only)"""
    pooling: Literal["first", "mean"] = "first"
    """what a network of whole proteins sees: the first token, as transformers has it, or the mean of the residues"""
    freeze: Literal["none", "trunk"] = "none"
    """trunk: train the head only"""
    join_kernels: bool = True
    """on GPUs: compile what stands between matrix products into one kernel each; takes seconds at the start"""
    recompute: Literal["none", "selective", "full"] = "none"
    """compute activations again in the backward pass, to save memory: those inside a layer's MLP, or of whole layers"""

    @property
    def sequence_length(self) -> int:
        """Of a row that is not packed."""
        return self.max_length

    @property
    def num_labels(self) -> int:
        """Number of classes."""
        return len(self.classes)

    def problems(self) -> list[str]:
        """See the base class."""
        found = super().problems()
        if self.max_length < 3:
            found.append(f"--model.max_length {self.max_length} must be at least 3: <cls>, a residue, <eos>")
        if not 0 <= self.attention_dropout < 1:
            found.append(f"--model.attention_dropout {self.attention_dropout} must be from 0 to below 1")
        if not found and self.hidden_size // self.num_attention_heads % 2:
            found.append(
                f"--model.hidden_size {self.hidden_size} gives each of {self.num_attention_heads} heads an odd number "
                "of features, and rotary positions turn pairs: change one of them"
            )
        if len(set(self.classes)) < max(len(self.classes), 1):
            found.append(f"--model.classes {self.classes} must be different names, at least one")
        return found


TINY_TRAINING = TrainingSettings(max_steps=300, global_batch_size=64, lr=3e-3, warmup_steps=20)
"""What a laptop does in a minute or two with the sizes above."""


@dataclass(frozen=True)
class Settings(base.RunSettings):
    """Everything that decides a run; what `pretrain` runs with."""

    ONLY_PREDICT: ClassVar[dict[str, str]] = {
        "input": "for figures of other proteins than those to test with, set --data.test_file",
        "embeddings": "leave it out",
        "layer": "leave it out",
    }

    network: Literal[
        "masked", "sequence_classifier", "sequence_regressor", "residue_classifier", "residue_regressor"
    ] = "masked"
    """masked: pretraining, guesses masked residues; the others are finetuned, for whole proteins or for each residue"""
    data: DataSettings = field(default_factory=DataSettings)
    """the data"""
    model: ModelSettings = field(default_factory=ModelSettings)
    """the network's sizes"""
    training: TrainingSettings = field(default_factory=lambda: TINY_TRAINING)
    """the training"""
    from_hf: str | None = None
    """folder of Hugging Face's transformers whose weights this run starts from, as `save_pretrained` writes it"""
    input: str | None = None
    """predict: proteins that need no labels, FASTA, CSV or TSV, perhaps .gz; default: those to test with"""
    embeddings: Literal["none", "sequence", "residue"] = "none"
    """predict: write features too, the mean of the residues of each protein, or those of each residue"""
    layer: int | None = None
    """predict: after how many layers the features are taken; 0: the embedding; default: the last, with its norm"""

    @property
    def sequence_length(self) -> int:
        """Tokens of a row: of one protein, or of as many as fit."""
        return self.data.pack or self.model.sequence_length

    @property
    def foreign_start(self) -> str | None:
        """See the base class."""
        return self.from_hf

    def from_start(self) -> dict[str, Any]:
        """Return the sizes that a folder of transformers has, and which network it is; see the base class."""
        if self.from_hf is None:
            return {}
        config = read_config(Path(self.from_hf))
        network = network_of(config)
        sizes = sizes_of(config) if network in (None, "masked") else {**sizes_of(config), "classes": classes_of(config)}
        return {"model": replace(self.model, **sizes), **({"network": network} if network else {})}

    @property
    def predicted(self) -> str:
        """The name of --input, without what says its kind, and which features are asked for."""
        name = Path(re.sub(r"\.gz$", "", Path(self.input).name, flags=re.IGNORECASE)).stem if self.input else ""
        kind = self.embeddings if self.embeddings != "none" else ""
        layer = "" if self.layer is None else f"layer{self.layer}"
        return "-".join(filter(None, (name, kind, layer)))

    @property
    def to_test(self) -> tuple[str, ...]:
        """A test file, if a person's proteins train and there is none: the sample is not tested with then."""
        return ("--data.test_file", "FILE") if self.data.train_file and not self.data.test_file else ()

    def to_predict(self) -> Settings:
        """Return these with a row for each protein, and without masks.

        Raises:
            UserError: the network guesses masked residues, and nothing else is asked for.
        """
        if self.network == "masked" and self.embeddings == "none":
            raise UserError(
                f"the network of {self.run_dir}, {self.network}, predicts nothing for an item but its features: add "
                "--embeddings sequence, or residue"
            )
        return replace(self, data=replace(self.data, pack=0, mask_probability=0.0))

    def problems(self) -> list[str]:
        """See the base class."""
        return super().problems() or [text for is_wrong, text in self._protein_checks() if is_wrong]

    def _protein_checks(self) -> list[tuple[bool, str]]:
        pack, tensor = self.data.pack, self.parallel.tensor
        return [
            (
                0 < pack <= self.model.max_length,
                f"--data.pack {pack} must be above --model.max_length {self.model.max_length}, or 0",
            ),
            (
                self.model.freeze == "trunk" and self.network == "masked",
                "--model.freeze trunk is for finetuning: masked trains the whole network, set it to none",
            ),
            (
                pack > 0 and self.network != "masked",
                f"--data.pack {pack} is for pretraining: {self.network} has a row for each protein, set it to 0",
            ),
            (
                pack > 0 and self.model.attention_dropout > 0,
                f"--model.attention_dropout {self.model.attention_dropout} is not for packed rows, whose attention "
                "drops nothing on a GPU: set it to 0, or --data.pack to 0",
            ),
            (
                bool(self.from_run and self.from_hf),
                f"--from {self.from_run} and --from_hf {self.from_hf}: a run starts from one of them, leave out one",
            ),
            (
                VOCABULARY_ROWS % tensor != 0,
                f"--parallel.tensor {tensor} does not divide the {VOCABULARY_ROWS} rows of the embedding: change it",
            ),
            (
                self.layer is not None and self.embeddings == "none",
                f"--layer {self.layer} is of features: add --embeddings sequence, or residue",
            ),
            (
                self.layer is not None and not 0 <= self.layer <= self.model.num_layers,
                f"--layer {self.layer} must be from 0 to {self.model.num_layers}: the network has so many layers",
            ),
        ]


FINETUNE = Settings(
    run_dir="runs/finetune",
    network="sequence_classifier",
    new_heads=("head",),
    training=replace(TINY_TRAINING, max_steps=600),
)
FROM_START = ("model", "seed")
LAYOUTS = Settings(
    data=DataSettings(pack=128),  # rows then count differently, and hold several proteins
    model=ModelSettings(num_layers=4, hidden_size=32, ffn_hidden_size=64, max_length=64, hidden_dropout=0.0),
    parallel=ParallelSettings(devices=4),
    training=PROOF,
)
