"""The presets: the sizes of the released ESM-2, with as many parameters as in transformers and the memory they name."""

import re
import shlex
from pathlib import Path

import pytest
import torch
import yaml
from conftest import run
from transformers import EsmConfig, EsmForMaskedLM

from {{cookiecutter.__package_name}}.model.item import MASK, PAD, TOKENS
from {{cookiecutter.__package_name}}.model.settings import VOCABULARY_ROWS, ModelSettings, Settings
from {{cookiecutter.__package_name}}.training.train import make_module

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
RELEASED = {  # parameters without the contact head, and attention heads
    "8M": (7_512_353, 20),
    "35M": (33_501_153, 20),
    "150M": (148_139_553, 20),
    "650M": (651_042_593, 20),
    "3B": (2_839_004_193, 40),
    "15B": (15_129_098_273, 40),
}


@pytest.mark.parametrize("name", RELEASED)
def test_a_preset_has_the_parameters_of_the_released_network_and_needs_no_memory_to_be_built(name, megatron):
    sizes = yaml.safe_load((CONFIGS / f"esm2-{name}.yaml").read_text())["model"]
    config = make_module(Settings(model=ModelSettings(**sizes)), start_weights=None).config
    with torch.device("meta"):
        ours = config.configure_model()
        theirs = EsmForMaskedLM(
            EsmConfig(
                vocab_size=len(TOKENS),
                pad_token_id=PAD,
                mask_token_id=MASK,
                position_embedding_type="rotary",
                num_hidden_layers=sizes["num_layers"],
                hidden_size=sizes["hidden_size"],
                num_attention_heads=sizes["num_attention_heads"],
                intermediate_size=sizes["ffn_hidden_size"],
            )
        )
    assert {weight.device.type for weight in (*ours.parameters(), *ours.buffers())} == {"meta"}
    padding = VOCABULARY_ROWS - len(TOKENS)
    count = sum(weight.numel() for weight in ours.parameters()) - padding * (config.hidden_size + 1)
    released = {name: weight.numel() for name, weight in theirs.named_parameters() if "contact_head" not in name}
    assert count == sum(released.values())
    assert (count, config.num_attention_heads) == RELEASED[name]
    assert config.max_length == 1024


@pytest.mark.parametrize("name", [*(f"esm2-{name}" for name in RELEASED), "two-machines", "eight-machines"])
def test_the_memory_in_the_head_of_a_config_is_what_plan_says_of_its_command(name, capsys):
    text = (CONFIGS / f"{name}.yaml").read_text()
    [words] = re.findall(r"Command: \S+ pretrain (.+)", text)
    assert run("plan", *shlex.split(words.replace("configs/", f"{CONFIGS}/"))) == 0
    [planned] = re.findall(r"^ +0: ranks .+ ([\d.]+)$", capsys.readouterr().out, flags=re.MULTILINE)
    [said] = re.findall(r"says ([\d.]+) GiB", text)
    assert float(said) == float(f"{float(planned):.2g}")
