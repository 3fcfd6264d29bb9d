"""Hugging Face's EsmForMaskedLM, compiled, in a plain loop: bf16 autocast, fused AdamW, clipping.

    python benchmarks/hugging_face.py '{"num_hidden_layers": 33, ...}' ROWS MICRO_BATCH LENGTH STEPS

It trains on one batch of full rows again and again, so it waits for no data. Its last line is JSON: the median tokens a
second of all steps but the first three, and the most memory of the GPU in GiB.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from typing import Any

import torch
from machine import gpus, wait_for
from torch import Tensor
from transformers import EsmConfig, EsmForMaskedLM

TOKENS, PAD, MASK, RESIDUES = 33, 1, 32, (4, 24)
FIXED = {"vocab_size": TOKENS, "pad_token_id": PAD, "mask_token_id": MASK, "position_embedding_type": "rotary"}
NO_DROPOUT = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}  # as configs/esm2-*.yaml have it
MASKED = 0.15
FIRST = 3
"""Steps that compile and warm up."""


def batch(rows: int, length: int, device: str) -> tuple[Tensor, Tensor]:
    """Return tokens and labels, int64 [rows, length]: some residues are to be guessed."""
    torch.manual_seed(1)
    labels = torch.randint(*RESIDUES, (rows, length), device=device)
    hidden = torch.rand(rows, length, device=device) < MASKED
    return labels.masked_fill(hidden, MASK), labels.masked_fill(~hidden, -100)


def seconds_of_steps(sizes: dict[str, Any], rows: int, micro: int, length: int, steps: int, device: str) -> list[float]:
    """Train; return the seconds of each step."""
    torch.backends.cuda.matmul.allow_tf32 = True
    config = EsmConfig(**FIXED, **NO_DROPOUT, **sizes, token_dropout=True, emb_layer_norm_before=False)
    network = EsmForMaskedLM(config).to(device).train()
    compiled = torch.compile(network)
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-4, fused=True)
    tokens, labels = batch(rows, length, device)
    took = []
    for _ in range(steps):
        began = time.perf_counter()
        for some, targets in zip(tokens.split(micro), labels.split(micro), strict=True):
            with torch.autocast(device, torch.bfloat16):
                loss = compiled(input_ids=some, attention_mask=torch.ones_like(some), labels=targets).loss
            (loss * len(some) / rows).backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        wait_for(device)
        took.append(time.perf_counter() - began)
    return took


def main() -> None:
    """Train as the words say, and print."""
    sizes, (rows, micro, length, steps) = json.loads(sys.argv[1]), map(int, sys.argv[2:])
    device = "cuda" if gpus() else "cpu"
    took = seconds_of_steps(sizes, rows, micro, length, steps, device)
    tokens = rows * length / statistics.median(took[FIRST:])
    gib = torch.cuda.max_memory_allocated() / 2**30 if gpus() else 0.0
    print(json.dumps({"tokens": tokens, "useful": tokens, "gib": gib}))


if __name__ == "__main__":
    main()
