"""The cellar: what NeMo 2.7 and Megatron-Core 0.15 need to be lean, to run on CPU, and to save and resume by themselves.

Two doors lead here: the package's `__init__` installs the import placeholders, and `training.py` takes the rest from
`backend`, `strategy` and `checkpoint`. Writing a model never needs this room. README.md explains each workaround.
"""
