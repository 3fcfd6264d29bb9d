"""A model trained with Megatron-Core and NeMo 2. Start reading at `training.py`; change `data/`, `model.py`, `losses.py`."""

from .runtime import placeholders

# Must run before anything imports NeMo: leaves out the LLM stack that training never uses (see runtime/README.md).
placeholders.install()
