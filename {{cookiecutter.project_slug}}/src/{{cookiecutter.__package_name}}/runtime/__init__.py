"""The cellar: what NeMo 2.7 and Megatron-Core 0.15 need to be lean, to run on CPU, to save and to resume.

Two doors lead here: the package's `__init__` installs the import placeholders (and the command line quiets the
libraries), and `training/` takes the rest, `train.py` most of it. Writing a model never needs this room. README.md
explains each workaround.
"""
