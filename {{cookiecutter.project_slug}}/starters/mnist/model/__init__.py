"""Everything that knows what is modelled, and nothing else does: replace this folder by your own model.

| file | says | the pages that say what it must give |
|---|---|---|
| `item.py` | what an item is: `MnistItem` | `contracts/item.py` |
| `dataset.py` | where items come from: `MNISTCustom` | `contracts/item.py` |
| `settings.py` | what can be set, the defaults of each command | `contracts/settings.py` |
| `network.py` | the networks, from `layers/` | `contracts/stage.py` |
| `losses.py` | `MSELossReduction`, `ClassifierLossReduction` | `contracts/loss.py` |
| `results.py` | what is kept of outputs, what `predict` writes | `contracts/config.py` |
| `config.py` | which network goes with which of these | `contracts/config.py` |
| `figures.py` | what the report draws | `drawing/theme.py` |
| `plain.py` | the networks in plain PyTorch, for `export` | `results/export.py` |

For those who know BioNeMo's example: `configure_model` and `get_loss_reduction_class` are in `contracts/config.py`;
the LightningDataModule with `MegatronDataSampler` is `training/datamodule.py`; `PRNGResampleDataset` and
`MultiEpochDatasetResampler` are choices of `--data.resampling`. Its `SameSizeLossDict`, which holds a mean, is right
only where all micro batches count the same; here a sum and a count travel (`contracts/loss.py`).
"""
