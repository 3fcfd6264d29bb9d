"""A start from a folder of Hugging Face's transformers: every weight, in every layout, or a refusal in words."""

import json
from dataclasses import replace

import pytest
import torch
from conftest import change, run
from megatron.core import parallel_state
from theirs import THEIRS, change_config, make, saved, started, weights_of

from {{cookiecutter.__package_name}}.contracts.errors import UserError
from {{cookiecutter.__package_name}}.model.hugging_face.weights import to_hugging_face
from {{cookiecutter.__package_name}}.model.item import TOKENS
from {{cookiecutter.__package_name}}.model.settings import Settings
from {{cookiecutter.__package_name}}.training.run_settings import check_same_run
from {{cookiecutter.__package_name}}.training.train import make_module

HEADS = 4


def built(settings, new_heads=(), **changes):
    """Build the network that these settings start with."""
    config = make_module(settings, start_weights=None).config
    return replace(config, new_heads=new_heads, **changes).configure_model()


def back(stage, network):
    """Return our weights by their names."""
    return to_hugging_face(dict(stage.named_parameters()), network, HEADS)


def assert_equal(found, expected):
    assert found.keys() == expected.keys()
    for name, weight in expected.items():
        assert torch.equal(found[name], weight), name


# Weights


@pytest.mark.parametrize("network", THEIRS)
def test_every_weight_is_taken_and_gives_itself_back(network, megatron, tmp_path):
    theirs = make(network)
    stage = built(started(saved(theirs, tmp_path), network))
    assert stage.config.layernorm_epsilon == theirs.config.layer_norm_eps
    assert_equal(back(stage, network), weights_of(theirs))


def test_a_folder_for_longer_proteins_is_told(megatron, tmp_path, capsys):
    theirs = saved(make("masked", max_position_embeddings=66), tmp_path)
    told = f"{tmp_path} is for proteins of up to 64 tokens, and no more than --model.max_length 48 are read here"
    built(started(theirs, "masked"))
    assert told in capsys.readouterr().err
    built(started(theirs, "masked", model={"max_length": 64}))
    assert told not in capsys.readouterr().err


def test_a_folder_of_several_files_is_the_same(megatron, tmp_path):
    theirs = make("masked")
    saved(theirs, tmp_path, max_shard_size="5KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 2
    assert_equal(back(built(started(tmp_path, "masked")), "masked"), weights_of(theirs))


def test_weights_take_the_precision_of_the_run(megatron, tmp_path):
    theirs = make("masked").to(torch.bfloat16)
    found = back(built(started(saved(theirs, tmp_path), "masked")), "masked")
    assert_equal(found, {name: weight.float() for name, weight in weights_of(theirs).items()})


def test_a_head_of_the_folder_is_taken_unless_it_is_to_be_drawn_anew(megatron, tmp_path):
    theirs = make("sequence_classifier")
    settings = started(saved(theirs, tmp_path), "sequence_classifier")
    taken = built(settings, new_heads=("head",))
    assert taken.loaded_heads == ("head",)
    assert_equal(back(taken, "sequence_classifier"), weights_of(theirs))
    drawn = built(settings, new_heads=("head",), redraw_heads=True)
    assert drawn.loaded_heads == ()
    assert_equal(back(drawn, "sequence_classifier"), {**weights_of(theirs), **fresh_head(settings)})


def test_a_head_of_other_classes_is_new_as_a_whole(megatron, tmp_path):
    theirs = make("sequence_classifier")
    settings = started(saved(theirs, tmp_path), "sequence_classifier")
    other = change(settings, model={"classes": ["one", "two"]})  # its first layer would fit
    found = built(other, new_heads=("head",))
    assert found.loaded_heads == ()
    assert_equal(back(found, "sequence_classifier"), {**weights_of(theirs), **fresh_head(other)})


def fresh_head(settings):
    """Return the weights of the head that these settings draw."""
    drawn = back(built(replace(settings, from_hf=None)), "sequence_classifier")
    return {name: weight for name, weight in drawn.items() if name.startswith("classifier")}


def test_a_trunk_alone_is_taken_where_the_head_is_new(megatron, tmp_path):
    theirs = make("masked")
    saved(theirs.esm, tmp_path)
    found = back(built(started(tmp_path, "residue_classifier"), new_heads=("head",)), "residue_classifier")
    trunk = {name: weight for name, weight in weights_of(theirs).items() if name.startswith("esm.")}
    assert_equal({name: weight for name, weight in found.items() if name in trunk}, trunk)


def test_each_pipeline_stage_takes_what_it_holds_and_the_last_one_its_copy_of_the_embedding(
    megatron, tmp_path, monkeypatch
):
    theirs = make("masked")
    settings = started(saved(theirs, tmp_path), "masked")
    config = make_module(settings, start_weights=None).config
    split, whole = replace(config, pipeline_model_parallel_size=2, pipeline_dtype=torch.float32), {}
    for rank in range(2):
        monkeypatch.setattr(parallel_state, "get_pipeline_model_parallel_rank", lambda rank=rank: rank)
        monkeypatch.setattr(parallel_state, "is_pipeline_first_stage", lambda rank=rank, **_: rank == 0)
        monkeypatch.setattr(parallel_state, "is_pipeline_last_stage", lambda rank=rank, **_: rank == 1)
        whole |= dict(split.configure_model().named_parameters())
    copy = whole.pop("head.scores.linear.weight")
    assert torch.equal(copy, whole["trunk.embedding.weight"])
    assert_equal(to_hugging_face(whole, "masked", HEADS), weights_of(theirs))


# Refusals


@pytest.fixture
def folder(tmp_path):
    """A folder of the masked network."""
    return saved(make("masked"), tmp_path / "theirs")


@pytest.mark.parametrize(
    ("key", "value", "needed"),
    [
        ("model_type", "bert", '"esm"'),
        ("vocab_size", 64, "33"),
        ("pad_token_id", 0, "1"),
        ("mask_token_id", 4, "32"),
        ("position_embedding_type", "absolute", '"rotary"'),
        ("position_embedding_type", "left out", '"rotary"'),
        ("token_dropout", False, "true"),
        ("token_dropout", "left out", "true"),
        ("emb_layer_norm_before", True, "false"),
        ("hidden_act", "relu", '"gelu"'),
        ("tie_word_embeddings", False, "true"),
        ("is_folding_model", True, "false"),
        ("is_decoder", True, "false"),
        ("add_cross_attention", True, "false"),
        ("problem_type", "multi_label_classification", "regression or single_label_classification"),
        ("intermediate_size", "left out", "a whole number"),
    ],
)
def test_what_is_no_network_of_ours_is_refused_by_its_key(key, value, needed, folder, refused, run_dir):
    change_config(folder, **{key: value})
    shown = "null" if value == "left out" else json.dumps(value)
    answer = f"{folder}/config.json: {key} is {shown} and must be {needed}: only networks like ESM-2's can be taken"
    assert answer in refused("pretrain", *run_dir, "--from_hf", folder)


def test_other_tokens_are_refused_and_the_right_ones_are_not(folder, refused, asked, run_dir):
    (folder / "vocab.txt").write_text("\n".join(sorted(TOKENS)))
    assert "vocab.txt lists other tokens than ESM-2's 33" in refused("pretrain", *run_dir, "--from_hf", folder)
    (folder / "vocab.txt").write_text("\n".join(TOKENS) + "\n")
    assert run("pretrain", *run_dir, "--from_hf", folder) == 0


@pytest.mark.parametrize(
    ("content", "answer"),
    [
        (None, "config.json cannot be read (No such file or directory): give a folder as `save_pretrained` writes it"),
        ("{", "config.json is no JSON"),
        ("[]", "config.json holds no values by name"),
    ],
)
def test_a_folder_without_a_config_is_refused(content, answer, refused, run_dir, tmp_path):
    if content is not None:
        (tmp_path / "config.json").write_text(content)
    assert answer in refused("finetune", *run_dir, "--from_hf", tmp_path)


def test_a_run_starts_from_one_thing_only(folder, refused, run_dir):
    assert "a run starts from one of them" in refused("pretrain", *run_dir, "--from_hf", folder, "--from_run", "there")


def refusal(settings, new_heads=()):
    with pytest.raises(UserError) as caught:
        built(settings, new_heads)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_pickles_are_not_read(folder, megatron):
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    told = refusal(started(folder, "masked"))
    assert told.startswith(f"{folder} has its weights as a pickle, which can run any code and is not read")
    assert told.endswith("`model.save_pretrained(DIR, safe_serialization=True)`")


def test_weights_that_are_not_there_or_damaged_are_told(folder, megatron):
    settings = started(folder, "masked")
    (folder / "model.safetensors").write_bytes(b"nothing")
    assert "model.safetensors cannot be read" in refusal(settings)
    (folder / "model.safetensors").unlink()
    assert f"{folder} has no model.safetensors" in refusal(settings)
    (folder / "model.safetensors.index.json").write_text('{"weight_map": {"lm_head.bias": "one.safetensors"}}')
    assert "one.safetensors cannot be read" in refusal(settings)


@pytest.mark.parametrize(("size", "own", "other"), [("num_attention_heads", 4, 2), ("num_layers", 2, 1)])
def test_other_sizes_are_refused_even_where_the_weights_would_fit(size, own, other, folder, megatron):
    settings = change(started(folder, "masked"), model={size: other})
    assert refusal(settings) == f"--model.{size} {other} is not that of {folder}, {own}: leave it out"


def test_a_head_that_is_not_there_is_refused_unless_it_is_new(folder, megatron):
    told = refusal(started(folder, "sequence_classifier"))
    assert told.startswith(f"{folder} does not fit this network (classifier.dense.weight is missing; ")
    assert told.endswith("that may start anew with --new_heads (now: none).")


def test_a_head_of_other_classes_is_refused_with_both_shapes(megatron, tmp_path):
    saved(make("residue_classifier"), tmp_path)
    settings = change(started(tmp_path, "residue_classifier"), model={"classes": ["one", "two"]})
    assert "head.scores.weight: it is (6, 16), not (2, 16)" in refusal(settings)


def test_a_resume_from_another_folder_is_refused():
    saved_settings = Settings(from_hf="one")
    check_same_run(saved_settings, saved_settings)
    with pytest.raises(UserError, match="--from_hf one, not two"):
        check_same_run(Settings(from_hf="two"), saved_settings)
