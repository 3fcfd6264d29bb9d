"""Folders of Hugging Face's transformers: `--from_hf` starts from one, `export` writes one."""
