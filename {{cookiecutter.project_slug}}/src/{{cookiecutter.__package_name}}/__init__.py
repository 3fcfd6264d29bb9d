"""A Megatron-Core model trained with NeMo 2. `model/` is yours, and the README tells how."""

from .runtime import placeholders

# Must run before anything imports NeMo: leaves out the LLM stack that training never uses (see runtime/README.md).
placeholders.install()
