"""Exports: folders that transformers loads, with the same answers, and with what its tokenizer needs."""

import json
from dataclasses import replace

import pytest
import torch
import transformers
from conftest import TINY, change, run
from safetensors.torch import load_file
from theirs import CLASSES, THEIRS, answer, make, saved, weights_of

from {{cookiecutter.__package_name}}.contracts.errors import UserError
from {{cookiecutter.__package_name}}.contracts.names import EVALUATION_FILE, WEIGHTS_FILE
from {{cookiecutter.__package_name}}.model import plain
from {{cookiecutter.__package_name}}.model.hugging_face import export
from {{cookiecutter.__package_name}}.model.hugging_face.config import read_config
from {{cookiecutter.__package_name}}.model.hugging_face.export import FILES, HEAD_FILE
from {{cookiecutter.__package_name}}.model.item import TOKENS
from {{cookiecutter.__package_name}}.results.export import MODEL_FILE, PLAIN_FILE, export_run
from {{cookiecutter.__package_name}}.training.train import make_data, make_module

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def offline(monkeypatch):
    """Let nothing be fetched: not even a question may be asked."""
    monkeypatch.setattr("socket.socket.connect", lambda *_: pytest.fail("something asked the network"))


@pytest.fixture
def table(tmp_path):
    """Proteins with labels for every network, to try an export on."""
    rows = ["sequence,masked,sequence_classifier,sequence_regressor,residue_classifier,residue_regressor"]
    for number, protein in enumerate(("MKTAYIAKQRQISFVKSHFSRQ", "GAVL", "MSTNPKPQRKTKRNT", "MA" * 40, "W", "MKK")):
        size = len(protein)
        rows.append(f"{protein},,{CLASSES[number]},{number},{' '.join(CLASSES[:1] * size)},{' '.join('1' * size)}")
    (tmp_path / "proteins.csv").write_text("\n".join(rows))
    return str(tmp_path / "proteins.csv")


@pytest.fixture
def exported(tmp_path, table):
    """Export a network of transformers that comes from a folder; return settings, that network, and the new folder."""

    def export(network, **changes):
        theirs, data = make(network), {"test_file": table, "label_column": network}
        folder = saved(theirs, tmp_path / "theirs")
        given = change(TINY, network=network, run_dir=str(tmp_path / "run"), from_hf=str(folder), data=data)
        settings = change(replace(given, model=given.from_start()["model"]), **changes)
        return settings, theirs, export_run(settings, tmp_path / "export")

    return export


def some_items(settings):
    data = make_data(settings)
    data.setup("test")
    items = data.test_dataloader().dataset
    return items.__getitems__(list(range(len(items))))


@pytest.mark.parametrize("network", THEIRS)
def test_transformers_loads_the_same_weights_and_answers_the_same(network, exported):
    settings, theirs, folder = exported(network)
    found, told = THEIRS[network].from_pretrained(folder, output_loading_info=True)
    assert not any(told.values()), "something is missing, or too much"
    expected = weights_of(theirs)
    assert {name: weight for name, weight in weights_of(found).items() if not torch.equal(weight, expected[name])} == {}
    batch = some_items(settings)
    torch.testing.assert_close(answer(found, batch), answer(theirs, batch), rtol=0, atol=0)
    assert {path.name for path in folder.iterdir()} == {*FILES, MODEL_FILE, PLAIN_FILE} - {HEAD_FILE}
    problems = {"regressor": "regression", "classifier": "single_label_classification"}
    assert found.config.problem_type == problems.get(network.split("_")[-1])
    if network.endswith("classifier"):
        assert list(found.config.id2label.values()) == CLASSES
    read_config(folder)


@pytest.mark.parametrize(
    ("network", "changes"),
    [
        ("masked", {}),
        ("masked", {"data": {"pack": 128}}),
        ("sequence_classifier", {"model": {"pooling": "mean"}}),
        ("residue_regressor", {}),
    ],
    ids=["padded", "packed", "mean", "residues"],
)
def test_what_loads_an_export_answers_as_the_network_here(network, changes, exported, request):
    settings, _, folder = exported(network, **changes)
    assert (folder / PLAIN_FILE).exists()
    batch = some_items(settings)
    request.getfixturevalue("megatron")  # not before, for an export ends it
    stage = make_module(settings, start_weights=None, same_network=True).config.configure_model().eval()
    with torch.no_grad():
        expected, found = stage.forward(batch), plain.load(folder)(batch["tokens"], batch["sequence"])
    expected = {name: value for name, value in expected.items() if not name.startswith("_")}
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-5, atol=1e-5)
    if "pack" in changes.get("data", {}):
        assert batch["sequence"].max() > 1


def test_a_head_over_the_mean_is_kept_apart_and_said(exported, capsys):
    _, theirs, folder = exported("sequence_classifier", model={"pooling": "mean"})
    assert "transformers has no head over the mean of the residues" in capsys.readouterr().err
    assert load_file(folder / HEAD_FILE).keys() == {"dense.weight", "dense.bias", "out_proj.weight", "out_proj.bias"}
    trunk, told = transformers.EsmModel.from_pretrained(folder, add_pooling_layer=False, output_loading_info=True)
    assert not any(told.values())
    assert torch.equal(trunk.embeddings.word_embeddings.weight, theirs.esm.embeddings.word_embeddings.weight)


def test_an_export_in_bf16_says_so_and_keeps_its_positions_exact(exported):
    _, theirs, folder = exported("masked", training={"precision": "bf16"})
    weights = load_file(folder / WEIGHTS_FILE)
    untrained = {name for name in weights if "inv_freq" in name or "contact_head" in name}
    assert {weights[name].dtype for name in weights.keys() - untrained} == {torch.bfloat16}
    rotary = theirs.esm.encoder.layer[0].attention.self.rotary_embeddings.inv_freq
    assert torch.equal(weights["esm.encoder.layer.1.attention.self.rotary_embeddings.inv_freq"], rotary)
    assert json.loads((folder / "config.json").read_text())["torch_dtype"] == "bfloat16"
    assert (folder / PLAIN_FILE).exists()
    rounded = {name: weight.bfloat16().float() for name, weight in weights_of(theirs).items()}
    found = weights_of(THEIRS["masked"].from_pretrained(folder))
    assert all(torch.equal(found[name], weight) for name, weight in rounded.items())


def test_the_tokenizer_of_transformers_reads_proteins_as_the_network_does(exported):
    settings, _, folder = exported("masked")
    expected = {"input_ids": [0, *map(TOKENS.index, "MKXBUZO"), 32, 2], "attention_mask": [1] * 10}
    for kind in (transformers.EsmTokenizer, transformers.AutoTokenizer):
        tokenizer = kind.from_pretrained(folder)
        assert dict(tokenizer("MKXBUZO<mask>")) == expected
        assert (len(tokenizer), tokenizer.pad_token_id) == (len(TOKENS), 1)
        assert tokenizer.model_max_length == settings.model.max_length
        assert len(tokenizer("M" * 99, truncation=True)["input_ids"]) == settings.model.max_length


def test_another_network_is_not_exported_as_the_same(exported, monkeypatch, capsys):
    untrained = export.untrained
    monkeypatch.setattr(export, "untrained", lambda config: {n: 2 * w for n, w in untrained(config).items()})
    _, _, folder = exported("masked")
    assert not (folder / PLAIN_FILE).exists()
    assert "model/plain.py is not the network of model/network.py (its logits differs by" in capsys.readouterr().err


def test_the_card_tells_data_sizes_and_figures(exported, tmp_path):
    (tmp_path / "run").mkdir()
    scored = {"test_loss": 2.87123, "counts": {"test_loss": 7}, "changed": {"data.test_file": "my proteins.fasta"}}
    (tmp_path / "run" / EVALUATION_FILE).write_text(json.dumps(scored))
    _, _, folder = exported("masked", data={"mask_probability": 0.25})
    card = (folder / "README.md").read_text()
    assert "more than 46 residues `predict` reads both ends" in card and "`sequence[:23] + sequence[-23:]`" in card
    for words in ("# run\n", "2 layers, 16 features", "mask_probability: 0.25", "test_loss: 2.871\n", "EsmForMaskedLM"):
        assert words in card
    figures = card.split("## Figures")[1]
    assert "counts" not in figures and "Scored with --data.test_file 'my proteins.fasta':\n\n- test_loss" in figures


def test_an_evaluation_that_cannot_be_read_is_one_line(exported, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / EVALUATION_FILE).write_text('{"test_loss": 2.8')
    with pytest.raises(UserError, match=r"evaluation.json cannot be used \(.*\): write it again with `evaluate"):
        exported("masked")


def test_the_command_exports_a_folder_again_over_an_older_export(tmp_path):
    folder, out = saved(make("masked"), tmp_path / "theirs"), tmp_path / "out"
    words = ["--from_hf", folder, "--run_dir", out, "--model.max_length", 48]
    for _ in range(2):
        assert run("export", *words) == 0
    assert {path.name for path in (out / "export").iterdir()} == {*FILES, MODEL_FILE, PLAIN_FILE} - {HEAD_FILE}
