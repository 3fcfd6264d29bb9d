"""A start from a folder of Hugging Face's transformers: every weight, in every layout, or a refusal in words."""

import csv
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from conftest import TINY, change, read_rows, run
from megatron.core import parallel_state
from theirs import CLASSES, THEIRS, answer, make, saved, weights_of

from {{cookiecutter.__package_name}}.contracts import names
from {{cookiecutter.__package_name}}.contracts.errors import UserError
from {{cookiecutter.__package_name}}.contracts.view import Section
from {{cookiecutter.__package_name}}.model.item import TOKENS
from {{cookiecutter.__package_name}}.model.settings import FINETUNE, Settings
from {{cookiecutter.__package_name}}.model.weights import to_hugging_face
from {{cookiecutter.__package_name}}.proof.layouts import train_in_ranks
from {{cookiecutter.__package_name}}.training.run_settings import check_same_run
from {{cookiecutter.__package_name}}.training.train import make_data, make_module

HEADS = 4


def started(folder, network, **changes):
    """Return settings with which a tiny network starts from a folder, as the command line gets them."""
    given = change(TINY, network=network, from_hf=str(folder), **changes)
    return replace(given, model=given.from_start()["model"])


def built(settings, new_heads=()):
    """Build the network that these settings start with."""
    return replace(make_module(settings, start_weights=None).config, new_heads=new_heads).configure_model()


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


def test_a_folder_of_several_files_is_the_same(megatron, tmp_path):
    theirs = make("masked")
    saved(theirs, tmp_path, max_shard_size="5KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 2
    assert_equal(back(built(started(tmp_path, "masked")), "masked"), weights_of(theirs))


def test_weights_take_the_precision_of_the_run(megatron, tmp_path):
    theirs = make("masked").to(torch.bfloat16)
    found = back(built(started(saved(theirs, tmp_path), "masked")), "masked")
    assert_equal(found, {name: weight.float() for name, weight in weights_of(theirs).items()})


def test_new_heads_keep_their_random_weights_though_the_folder_has_others(megatron, tmp_path):
    theirs = make("sequence_classifier")
    settings = started(saved(theirs, tmp_path), "sequence_classifier")
    found = back(built(settings, new_heads=("head",)), "sequence_classifier")
    drawn = back(built(replace(settings, from_hf=None)), "sequence_classifier")
    heads = {name: weight for name, weight in drawn.items() if name.startswith("classifier")}
    assert_equal(found, {**weights_of(theirs), **heads})


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


def change_config(folder, **changes):
    path = folder / "config.json"
    config = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({key: value for key, value in config.items() if value != "left out"}))


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
        ("intermediate_size", "left out", "a number"),
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


# Commands


@pytest.mark.parametrize("network", THEIRS)
def test_a_folder_says_which_network_it_is_and_its_classes(network, asked, run_dir, tmp_path):
    saved(make(network), tmp_path)
    assert run("predict", *run_dir, "--from_hf", tmp_path, "--model.max_length", 48) == 0
    [given] = asked
    assert (given.network, given.model.max_length, given.model.num_layers) == (network, 48, 2)
    labels = {"masked": Settings().model.classes, "regressor": ["value"], "classifier": CLASSES}
    assert given.model.classes == labels[network.split("_")[-1]]


@pytest.mark.parametrize(
    ("changes", "network", "classes"),
    [
        ({"problem_type": "regression"}, "sequence_regressor", CLASSES),
        ({"id2label": "left out", "label2id": "left out"}, "sequence_classifier", ["LABEL_0", "LABEL_1"]),
        (
            {"id2label": {str(n): f"c{n}" for n in reversed(range(11))}},
            "sequence_classifier",
            [f"c{n}" for n in range(11)],
        ),
        ({"id2label": {"0": "one"}, "problem_type": "single_label_classification"}, "sequence_classifier", ["one"]),
    ],
)
def test_labels_and_problem_type_decide_as_in_transformers(changes, network, classes, tmp_path):
    change_config(saved(make("sequence_classifier"), tmp_path), **changes)
    taken = Settings(from_hf=str(tmp_path)).from_start()
    assert (taken["network"], taken["model"].classes) == (network, classes)


def test_finetuning_takes_the_sizes_and_keeps_its_own_network(folder, asked, run_dir):
    assert run("finetune", *run_dir, "--from_hf", folder, "--model.pooling", "mean") == 0
    [given] = asked
    assert (given.network, given.new_heads, given.model.pooling) == (FINETUNE.network, FINETUNE.new_heads, "mean")
    assert given.model.hidden_size == 16 and given.model.layernorm_epsilon == 1e-6


@pytest.mark.slow
def test_finetuning_trains_a_new_head_on_the_trunk_and_a_resume_needs_the_folder_no_more(
    train, folder, tmp_path, capsys
):
    steps = {"max_steps": 4, "val_check_interval": 2}
    run_dir = str(tmp_path / "run")
    settings = started(folder, FINETUNE.network, run_dir=run_dir, new_heads=("head",), training=steps)
    trained = train(settings)
    assert f"starting from the weights in {folder}" in capsys.readouterr().err
    trunk = weights_of(make("masked"))
    found = to_hugging_face(trained.start, FINETUNE.network, HEADS)
    assert all(torch.equal(found[name], trunk[name]) for name in trunk.keys() & found.keys())
    assert "esm.encoder.layer.1.attention.self.key.weight" in trunk.keys() & found.keys()
    folder.rename(tmp_path / "gone")
    resumed = train(change(settings, resume=True, training={"max_steps": 6}))
    assert all(torch.equal(resumed.start[name], weight) for name, weight in trained.end.items())


@pytest.mark.slow
@pytest.mark.parametrize("network", ["sequence_classifier", "residue_regressor"])
def test_a_prediction_is_that_of_transformers(network, tmp_path):
    theirs = make(network)
    table = tmp_path / "proteins.csv"
    proteins = ["MKTAYIAKQRQISFVKSHFSRQ", "MSTNPKPQRKTKRNT", "GAVL"]
    table.write_text("\n".join(["sequence", *proteins]))
    words = ["--run_dir", tmp_path / "out", "--from_hf", saved(theirs, tmp_path / "theirs"), "--input", table]
    assert run("predict", *words, "--accelerator", "cpu", "--model.max_length", 48) == 0
    [written] = (tmp_path / "out").glob("*.csv")
    with written.open(newline="") as file:
        rows = list(csv.DictReader(file))
    for protein, row in zip(proteins, rows, strict=True):
        tokens = torch.tensor([[0, *map(TOKENS.index, protein), 2]])
        logits = answer(theirs, {"tokens": tokens, "sequence": torch.ones_like(tokens)})[0]
        if network == "residue_regressor":
            found = torch.tensor([float(value) for value in row["prediction"].split()])
            torch.testing.assert_close(found, logits[1:-1, 0], rtol=1e-5, atol=1e-5)
        else:
            found = torch.tensor([float(row[f"probability_{name}"]) for name in CLASSES])
            torch.testing.assert_close(found, logits.softmax(-1), rtol=0, atol=1e-5)


@pytest.mark.slow
def test_an_evaluation_scores_what_transformers_answers(tmp_path):
    theirs = make("sequence_classifier")
    folder, out = saved(theirs, tmp_path / "theirs"), tmp_path / "out"
    words = ["--run_dir", out, "--from_hf", folder, "--accelerator", "cpu", "--model.max_length", 48]
    assert run("evaluate", *words) == 0
    data = make_data(started(folder, "sequence_classifier"))
    data.setup("test")
    batch = Section(data.test, 0, 1249).__getitems__(list(range(1249)))
    loss = torch.nn.functional.cross_entropy(answer(theirs, batch), batch["label"])
    assert json.loads((out / names.EVALUATION_FILE).read_text())["test_loss"] == pytest.approx(float(loss), rel=1e-5)
    assert not (out / names.SETTINGS_FILE).exists()


@pytest.mark.slow
def test_tensor_parallel_ranks_share_the_weights_of_a_folder(folder, train, tmp_path):
    steps = {"max_steps": 2, "val_check_interval": 2, "warmup_steps": 0, "micro_batch_size": 16}
    losses = []
    for parallel in ({}, {"devices": 2, "tensor": 2}):
        run_dir = tmp_path / f"run{len(losses)}"
        settings = started(folder, "masked", run_dir=str(run_dir), training=steps, parallel=parallel)
        train_in_ranks(settings) if parallel else train(settings)
        losses.append([float(row[names.TRAIN_LOSS]) for row in read_rows(Path(run_dir)) if row[names.TRAIN_LOSS]])
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
