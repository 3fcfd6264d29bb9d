"""Everything that knows what is modelled, and nothing else does: ESM-2 on proteins. Replace it by your own model.

| file | says | the page that says what it must give |
|---|---|---|
| `item.py` | what an item is: a row of tokens, and what is to be learned of it | `contracts/item.py` |
| `dataset.py`, `reading/` | where items come from: FASTA, tables, the sample | `contracts/item.py` |
| `settings.py` | what can be set, the defaults of each command | `contracts/settings.py` |
| `network.py` | ESM-2 and its heads, from `layers/` | `contracts/stage.py` |
| `losses.py` | what is minimised and reported | `contracts/loss.py` |
| `results.py` | what is kept of outputs, what `predict` writes | `contracts/config.py` |
| `measures/` | scores of a test set, and simple methods to beat | `contracts/config.py` |
| `config.py` | which network goes with which of these | `contracts/config.py` |
| `figures.py` | what the report draws | `drawing/theme.py` |
| `plain.py` | the networks as transformers has them, for `export` | `results/export.py` |
| `hugging_face/` | folders of transformers, in and out | `contracts/config.py` |
"""
