"""A Megatron-Core model trained with NeMo 2. Read `training.py` first; to make it yours see the README."""

from .runtime import placeholders

# Must run before anything imports NeMo: leaves out the LLM stack that training never uses (see runtime/README.md).
placeholders.install()
