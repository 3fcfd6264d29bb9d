"""The report room: what it shows of a run folder, what it says of a broken one, and that it never leaves half a report.

The run folders here are small and synthetic; no test needs torch.
"""

import base64
import io
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import matplotlib.image
import numpy as np
import pytest
import yaml
from matplotlib.axes import Axes

from {{cookiecutter.__package_name}} import names, report_curves, report_figures
from {{cookiecutter.__package_name}}.report import COMMAND, ReportError, make_report, read_chain, read_run

ITEMS = 60


SETTINGS = {"seed": 7, "parallel": {"tensor": 2}, "training": {"global_batch_size": 8}}


def write_run(folder: Path, classifier: bool = False, evaluated: bool = True, **settings: Any) -> Path:
    """Make a run folder as training and evaluate leave it, with sparse metrics and every array the network has."""
    folder.mkdir(parents=True, exist_ok=True)
    header = "grad_norm,lr,reduced_train_loss,step,train_accuracy,val_accuracy,val_loss"
    rows = [f"1.5,0.001,{1 / (s + 1)},{s},{s / 100 if classifier else ''},," for s in range(0, 100, 2)]
    rows += [f",,,{s},,{s / 100 if classifier else ''},{2 / s}" for s in (49, 99)]
    (folder / names.METRICS_FILE).write_text("\n".join([header, *rows]) + "\n")
    (folder / names.SETTINGS_FILE).write_text(yaml.safe_dump({**SETTINGS, **settings}))
    if evaluated:
        random = np.random.default_rng(0)
        label = np.arange(ITEMS) % 10
        image = random.integers(0, 256, (ITEMS, 28, 28), dtype=np.uint8)
        arrays = {"idx": np.arange(ITEMS), "label": label, "image": image}
        arrays["latent"] = (np.eye(10)[label] + random.normal(0, 0.1, (ITEMS, 10))).astype(np.float32)
        evaluation: dict[str, object] = {"test_loss": 0.25, "num_items": ITEMS}
        if classifier:
            answer = np.where(np.arange(ITEMS) < 3, (label + 1) % 10, label)  # the first three are wrong
            arrays["probability"] = np.eye(10, dtype=np.float32)[answer]
            evaluation["test_accuracy"] = 0.95
        else:
            arrays["reconstruction"] = image // 2
        np.savez(folder / names.OUTPUTS_FILE, **arrays)
        (folder / names.EVALUATION_FILE).write_text(json.dumps(evaluation))
    return folder


def text_of(page: Path) -> str:
    """Return what a reader sees, without tags, styles and pictures."""
    body = page.read_text(encoding="utf-8").partition("</head>")[2]
    return " ".join(unescape(re.sub(r"<[^>]*>", " ", body)).split())


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Draw a report in earnest, once, of a classifier that started from an autoencoder; return its page."""
    runs = tmp_path_factory.mktemp("runs")
    parent = write_run(runs / "first")
    return make_report(write_run(runs / "second", classifier=True, from_run=str(parent)))


@pytest.fixture
def drawings(monkeypatch: pytest.MonkeyPatch) -> dict[str, tuple[Any, ...]]:
    """Record what would be drawn instead of drawing it, which takes nearly all the time: name -> arrays."""
    seen: dict[str, tuple[Any, ...]] = {}

    def record(draw: Callable[..., Any], *arrays: Any) -> report_figures.Picture:
        seen[draw.__name__] = arrays
        return report_figures.Picture(light=b"light", dark=b"dark")

    monkeypatch.setattr(report_figures, "render", record)
    return seen


quick = pytest.mark.usefixtures("drawings")


def legend_of(axes: Axes) -> list[str]:
    """Return the entries of a legend that is there."""
    legend = axes.get_legend()
    assert legend
    return [text.get_text() for text in legend.get_texts()]


class Links(HTMLParser):
    """Collects the tags of a page and every address in it."""

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.addresses: list[str] = []
        self.feed(page.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        addresses = ("src", "srcset", "href", "data", "action", "poster", "background")
        self.addresses += [value or "" for name, value in attrs if name in addresses]


@quick
def test_an_autoencoder_gets_its_pictures(tmp_path: Path) -> None:
    page = make_report(write_run(tmp_path / "run"))
    assert page == tmp_path / "run" / "report" / "index.html"
    found = {path.name for path in page.parent.iterdir()}
    assert found == {"index.html", "loss.png", "reconstructions.png", "latent.png"}


def test_a_classifier_gets_its_pictures(chain: Path) -> None:
    found = {path.name for path in chain.parent.iterdir()}
    assert found == {"index.html", "loss.png", "accuracy.png", "latent.png", "confusion.png", "mistakes.png"}
    assert f"3 of {ITEMS} test items are classified wrong" in text_of(chain)


@quick
def test_headline_figures(tmp_path: Path) -> None:
    text = text_of(make_report(write_run(tmp_path / "run", classifier=True)))
    error = (0.95 * 0.05 / ITEMS) ** 0.5
    assert f"test accuracy 95.00% ± {error:.2%} (standard error, {ITEMS} test items)" in text
    assert "test loss 0.25" in text
    assert "steps 99 " in text
    assert "samples seen 792 " in text  # 8 in each global batch


def test_what_else_a_loss_names_is_shown(tmp_path: Path, drawings: dict[str, Any]) -> None:
    run = write_run(tmp_path / "run", classifier=True)
    rows = (run / names.METRICS_FILE).read_text().splitlines()
    rows = [f"{row},{extra}" for row, extra in zip(rows, ["val_error", *["0.5"] * (len(rows) - 1)], strict=True)]
    (run / names.METRICS_FILE).write_text("\n".join(rows) + "\n")
    (run / names.EVALUATION_FILE).write_text(json.dumps({"test_loss": 0.25, "test_error": 0.125, "num_items": ITEMS}))
    page = make_report(run)
    assert {"accuracy.png", "error.png"} <= {path.name for path in page.parent.iterdir()}
    assert "Last values: val_error 0.5." in text_of(page)
    assert f"test error 0.125 mean of {ITEMS} test items" in text_of(page)
    assert drawings["metric_curves"][1] == "error"  # the last one that was drawn


@quick
def test_numbers_are_drawn_against_the_true_ones(tmp_path: Path, drawings: dict[str, Any]) -> None:
    run = write_run(tmp_path / "run")
    truth = np.arange(ITEMS, dtype=np.float32)
    more = {"volts": truth + 0.5, "true_volts": truth, "alone": truth, "pair": np.ones((ITEMS, 2)), "true_pair": truth}
    np.savez(run / names.OUTPUTS_FILE, **np.load(run / names.OUTPUTS_FILE), **more)
    page = make_report(run)
    shown = {path.name for path in page.parent.iterdir()}
    assert {name for name in shown if name.startswith("predicted")} == {"predicted_volts.png"}
    name, answer, drawn = drawings["answers"]
    assert (name, answer.tolist(), drawn.tolist()) == ("volts", (truth + 0.5).tolist(), truth.tolist())
    assert "The mean distance is 0.5, and" in text_of(page)
    figure = report_figures.answers(report_figures.LIGHT, name, answer, drawn)
    assert figure.axes[0].get_title() == "Volts of the test items"


def test_settings_are_shown_under_their_dotted_names(tmp_path: Path) -> None:
    text = text_of(make_report(write_run(tmp_path / "run", layers=[3, 4], resume=None)))
    for row in ("parallel.tensor 2", "layers [3, 4]", "resume null", "seed 7"):
        assert row in text


def test_the_page_needs_nothing_but_itself(chain: Path) -> None:
    links = Links(chain)
    assert not {"script", "link", "iframe", "object", "embed"} & set(links.tags)
    assert "url(" not in chain.read_text() and "@import" not in chain.read_text()
    assert len(links.addresses) == 2 * (3 + 5)  # light and dark, three pictures of the parent and five of the child
    for address in links.addresses:
        kind, _, content = address.partition(",")
        assert kind == "data:image/png;base64"
        height, width = matplotlib.image.imread(io.BytesIO(base64.b64decode(content, validate=True))).shape[:2]
        assert height > 300 and width > 300


def test_the_page_adapts_to_phone_and_dark_mode(chain: Path) -> None:
    content = chain.read_text()
    assert '<meta name="viewport" content="width=device-width' in content
    assert content.count('<source media="(prefers-color-scheme: dark)"') == content.count("<img ") > 0
    assert report_figures.LIGHT.paper in content and report_figures.DARK.paper in content


def test_pictures_are_opaque_and_in_the_colours_of_their_page() -> None:
    picture = report_figures.render(report_figures.confusion, np.eye(3, dtype=int))
    for png, theme in ((picture.light, report_figures.LIGHT), (picture.dark, report_figures.DARK)):
        corner = matplotlib.image.imread(io.BytesIO(png))[0, 0]
        assert matplotlib.colors.to_hex(corner, keep_alpha=True) == theme.paper + "ff"


@quick
def test_text_from_files_is_escaped(tmp_path: Path) -> None:
    evil = "<img src=http://x onerror=y>&\"'"
    run = write_run(tmp_path / "a<b>&c", evaluated=False, from_run="<i>gone</i>", nested={evil: evil})
    metrics = run / names.METRICS_FILE
    metrics.write_text(f"step,reduced_train_loss,<u>x</u>\n0,1.0,nan\n1,{0.5},1\n")
    page = make_report(run)
    assert not {"i", "u", "b"} & set(Links(page).tags)
    assert all(address.startswith("data:") for address in Links(page).addresses)
    text = unescape(page.read_text())  # and it is there, as text
    assert text.count(evil[:30]) == 2
    for plain in ("<i>gone</i>", "<u>x</u> is not finite", "a<b>&c"):
        assert plain in text


@quick
def test_the_parent_comes_first(tmp_path: Path) -> None:
    first = write_run(tmp_path / "first")
    second = write_run(tmp_path / "second", classifier=True, from_run=str(first))
    third = write_run(tmp_path / "third", classifier=True, from_run=str(second))
    text = text_of(make_report(third))
    places = [text.index(title) for title in ("1. Pretraining", "2. Finetuning", "3. Finetuning")]
    assert places == sorted(places)
    alone = text_of(make_report(first))
    assert "Pretraining" in alone and "1." not in alone.split("test loss")[0]


def test_a_moved_parent_is_found_beside_its_child(tmp_path: Path) -> None:
    write_run(tmp_path / "first")
    child = write_run(tmp_path / "second", from_run="/gone/runs/first")
    runs, note = read_chain(child)
    assert [run.folder.name for run in runs] == ["first", "second"] and not note


@quick
def test_a_missing_or_broken_parent_is_a_note(tmp_path: Path) -> None:
    child = write_run(tmp_path / "child", from_run=str(tmp_path / "nowhere"))
    assert "nowhere, is left out." in text_of(make_report(child))
    write_run(tmp_path / "nowhere")
    (tmp_path / "nowhere" / names.METRICS_FILE).write_text("step,loss\n0,abc\n")
    assert "could not convert string to float: 'abc'" in text_of(make_report(child))


@pytest.mark.parametrize("ring", [["a"], ["a", "b"], ["a", "b", "c"]], ids=["itself", "two", "three"])
def test_a_circle_of_runs_ends(tmp_path: Path, ring: list[str]) -> None:
    for name, parent in zip(ring, ring[1:] + ring[:1], strict=True):
        write_run(tmp_path / name, evaluated=False, from_run=str(tmp_path / parent))
    runs, note = read_chain(tmp_path / "a")
    assert len(runs) == len(ring)
    assert "closes a circle" in note


@quick
def test_a_run_that_is_not_evaluated_says_how_to_get_the_rest(tmp_path: Path) -> None:
    run = write_run(tmp_path / "my run", evaluated=False)
    page = make_report(run)
    assert {path.name for path in page.parent.iterdir()} == {"index.html", "loss.png"}
    assert f"{COMMAND} evaluate --from '{run}'" in text_of(page)
    assert "test loss" not in text_of(page)
    write_run(run)
    assert "evaluate --from" not in text_of(make_report(run))


@quick
def test_metrics_alone_are_enough(tmp_path: Path) -> None:
    (tmp_path / names.METRICS_FILE).write_text("step,val_loss\n9,0.5\n")
    text = text_of(make_report(tmp_path))
    assert "steps 9 " in text and "Resolved settings" not in text


def test_a_resumed_run_counts_its_later_rows(tmp_path: Path) -> None:
    (tmp_path / names.METRICS_FILE).write_text("step,val_loss\n0,1\n2,3\n4,5\n2,30\n4,50\n,7\n")
    steps, values = read_run(tmp_path).curves["val_loss"]
    assert steps.tolist() == [0, 2, 4] and values.tolist() == [1, 30, 50]


def test_a_loss_that_broke_is_said_and_the_rest_drawn(tmp_path: Path, drawings: dict[str, Any]) -> None:
    (tmp_path / names.METRICS_FILE).write_text("step,reduced_train_loss\n0,1\n1000,nan\n1001,inf\n")
    page = make_report(tmp_path)
    assert "reduced_train_loss is not finite at 2 of 3 logged steps, first at step 1,000." in text_of(page)
    assert "Last values: reduced_train_loss inf." in text_of(page)
    (axes,) = report_curves.loss_curves(report_figures.LIGHT, *drawings["loss_curves"]).axes
    assert [line.get_xydata().tolist() for line in axes.lines] == [[[0, 1]]]
    assert legend_of(axes) == ["training (not finite at 2 of 3 points)"]


def test_a_picture_that_would_have_no_finite_value_is_left_out(tmp_path: Path, drawings: dict[str, Any]) -> None:
    (tmp_path / names.METRICS_FILE).write_text("step,reduced_train_loss,val_accuracy\n0,nan,inf\n")
    assert "val_accuracy is not finite at 1 of 1 logged steps" in text_of(make_report(tmp_path))
    assert not drawings


def test_a_validation_loss_that_is_never_finite_is_said_in_the_picture() -> None:
    steps = np.arange(3.0)
    curves = {names.TRAIN_LOSS: (steps, steps + 1), names.VAL_LOSS: (steps, steps * np.nan)}
    (axes,) = report_curves.loss_curves(report_figures.LIGHT, curves).axes
    assert legend_of(axes) == ["training", "validation (not finite at 3 of 3 points)"]


BROKEN = {
    "not a folder": (None, None, "is not a folder: check the path"),
    "no metrics": ("x.txt", b"", "has no metrics.csv: is it a run folder?"),
    "empty metrics": ("metrics.csv", b"", r"metrics.csv cannot be used \(no step is logged in it\)"),
    "header only": ("metrics.csv", b"step,val_loss\n", r"metrics.csv cannot be used \(no step is logged in it\)"),
    "metrics no number": ("metrics.csv", b"step,val_loss\n1,abc\n", r"metrics.csv cannot be used \(.*'abc'\)"),
    "binary metrics": ("metrics.csv", b"\xff\xfe\x00", "metrics.csv cannot be used"),
    "settings no yaml": ("settings.yaml", b"a: [", "settings.yaml cannot be used"),
    "settings a list": ("settings.yaml", b"- 1", r"settings.yaml cannot be used \(it is not a mapping"),
    "evaluation no json": ("evaluation.json", b"{", f"evaluation.json cannot be used.*`{COMMAND} evaluate --from"),
    "evaluation a list": ("evaluation.json", b"[1]", r"evaluation.json cannot be used \(it is not a mapping"),
    "evaluation no number": ("evaluation.json", b'{"test_loss": "x"}', "evaluation.json cannot be used"),
    "outputs no archive": ("outputs.npz", b"junk", "outputs.npz cannot be used"),
    "outputs cut off": ("outputs.npz", b"PK\x03\x04junk", f"outputs.npz cannot be used.*`{COMMAND} evaluate --from"),
    "outputs empty": ("outputs.npz", b"", "outputs.npz cannot be used"),
}


@pytest.mark.parametrize(("file", "content", "message"), BROKEN.values(), ids=BROKEN.keys())
def test_what_is_wrong_is_said_in_one_line(tmp_path: Path, file: str | None, content: bytes, message: str) -> None:
    run = tmp_path / "run"
    if file:
        run.mkdir()
        if file != "x.txt":
            write_run(run)
        (run / file).write_bytes(content)
    with pytest.raises(ReportError, match=message) as caught:
        make_report(run)
    assert "\n" not in str(caught.value)
    assert not (run / names.REPORT_FOLDER).exists()


def test_arrays_of_different_lengths_are_refused(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    np.savez(run / names.OUTPUTS_FILE, label=np.zeros(3, int), latent=np.zeros((2, 4)))
    with pytest.raises(ReportError, match="one row an item"):
        make_report(run)


class Crash(Exception):
    """Stands for whatever may go wrong while the report is written."""


@quick
@pytest.mark.parametrize("crash_at", ["second file", "move of the old", "move of the new"])
def test_a_crash_leaves_the_old_report_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, crash_at: str) -> None:
    run = write_run(tmp_path / "run")
    old = {path.name: path.read_bytes() for path in make_report(run).parent.iterdir()}
    write_run(run, evaluated=False, seed=8)
    calls = 0
    owner, name = (Path, "write_bytes") if crash_at == "second file" else (os, "replace")
    real = getattr(owner, name)

    def fail(*arguments: object) -> object:
        nonlocal calls
        calls += 1
        if calls == (1 if crash_at == "move of the old" else 2):
            raise Crash
        return real(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(owner, name, fail)
        with pytest.raises(Crash):
            make_report(run)
    assert {path.name: path.read_bytes() for path in (run / names.REPORT_FOLDER).iterdir()} == old
    assert not list(run.glob(".report-*"))
    assert "seed 8" in text_of(make_report(run))


@quick
def test_a_rerun_replaces_the_old_report(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    (make_report(run).parent / "stale.png").touch()
    before = {path.name for path in run.iterdir()}
    make_report(run)
    assert not (run / names.REPORT_FOLDER / "stale.png").exists()
    assert {path.name for path in run.iterdir()} == before


def test_equal_runs_give_equal_bytes(chain: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = {path.name: path.read_bytes() for path in chain.parent.iterdir()}
    monkeypatch.setitem(matplotlib.rcParams, "font.size", 20)  # a user's own style must not matter
    make_report(chain.parent.parent)
    assert {path.name: path.read_bytes() for path in chain.parent.iterdir()} == first
    assert all(b"Software" not in content and b"tEXt" not in content for content in first.values())


def test_drawing_leaves_no_trace_in_matplotlib() -> None:
    before = dict(matplotlib.rcParams)
    report_figures.render(report_figures.confusion, np.eye(3, dtype=int))
    assert dict(matplotlib.rcParams) == before


def test_principal_components_find_the_plane_and_its_shares() -> None:
    random = np.random.default_rng(0)
    plane = random.normal(size=(500, 2)) * (3, 1)
    turn = np.linalg.qr(random.normal(size=(8, 8)))[0][:2]
    points, explained = report_figures.principal_components(plane @ turn + 5)
    np.testing.assert_allclose(explained, np.array([9, 1]) / 10, atol=0.02)
    np.testing.assert_allclose(explained.sum(), 1)
    np.testing.assert_allclose(np.linalg.norm(points, axis=1), np.linalg.norm(plane - plane.mean(0), axis=1))


@pytest.mark.parametrize("shape", [(1, 1), (1, 5), (4, 1), (4, 2)], ids=str)
def test_any_latent_can_be_drawn(shape: tuple[int, int]) -> None:
    for latent in (np.zeros(shape), np.arange(float(np.prod(shape))).reshape(shape)):
        assert report_figures.latent_space(report_figures.LIGHT, latent, np.arange(len(latent))).axes
        points, explained = report_figures.principal_components(latent)
        assert points.shape == (len(latent), 2) and explained.shape == (2,)
        assert shape[1] > 1 or not points[:, 1].any()


def test_badges_are_pushed_apart() -> None:
    moved = report_figures._push_apart(np.array([[0.0, 0.0], [0.0, 0.0], [0.1, 0.0], [5.0, 5.0]]), 1.0)
    gaps = np.linalg.norm(moved[:, None] - moved[None], axis=-1) + 9 * np.eye(4)
    assert gaps.min() > 0.95
    np.testing.assert_allclose(moved[3], [5, 5], atol=1e-4)


@pytest.mark.parametrize("items", [1, 24], ids=str)
def test_few_and_many_mistakes_keep_their_size(items: int) -> None:
    images, captions = np.zeros((items, 9, 7), np.uint8), [("1 → 2", "99% sure")] * items
    picture = report_figures.render(report_figures.mistakes, images, captions)
    inches = np.array(report_figures.SIZE)[::-1]
    shape = matplotlib.image.imread(io.BytesIO(picture.light)).shape[:2]
    np.testing.assert_allclose(shape, inches * report_figures.DOTS_PER_INCH)


def test_the_worst_mistakes_come_first(tmp_path: Path, drawings: dict[str, Any]) -> None:
    run = write_run(tmp_path / "run", evaluated=False)
    probability = np.array([[0.6, 0.4], [0.1, 0.9], [0.2, 0.8], [0.7, 0.3]])  # the last one is right
    image = np.arange(4, dtype=np.uint8)[:, None, None] * np.ones((1, 4, 4), np.uint8)
    np.savez(run / names.OUTPUTS_FILE, label=np.array([1, 0, 0, 0]), probability=probability, image=image)
    make_report(run)
    images, captions = drawings["mistakes"]
    assert images[:, 0, 0].tolist() == [1, 2, 0]
    assert captions == [("0 → 1", "90.0% sure"), ("0 → 1", "80.0% sure"), ("1 → 0", "60.0% sure")]


def test_no_more_mistakes_than_there_is_room_for(tmp_path: Path, drawings: dict[str, Any]) -> None:
    run = write_run(tmp_path / "run", evaluated=False)
    answers = np.tile(np.array([[0.1, 0.9]]), (300, 1))
    np.savez(run / names.OUTPUTS_FILE, label=np.zeros(300, int), probability=answers, image=np.zeros((300, 4, 4)))
    make_report(run)
    assert [len(array) for array in drawings["mistakes"]] == [24, 24]


def test_a_perfect_classifier_has_no_mistakes(tmp_path: Path, drawings: dict[str, Any]) -> None:
    run = write_run(tmp_path / "run", evaluated=False)
    np.savez(run / names.OUTPUTS_FILE, label=np.arange(3), probability=np.eye(3), image=np.zeros((3, 4, 4)))
    assert "0 of 3 test items are classified wrong" in text_of(make_report(run))
    assert "mistakes" not in drawings


def test_confusion_rows_are_the_true_classes(tmp_path: Path, drawings: dict[str, Any]) -> None:
    run = write_run(tmp_path / "run", evaluated=False)
    np.savez(run / names.OUTPUTS_FILE, label=np.array([0, 0, 2]), probability=np.eye(3)[[0, 1, 1]])
    make_report(run)
    (counts,) = drawings["confusion"]
    assert counts.tolist() == [[1, 1, 0], [0, 0, 0], [0, 1, 0]]


def test_typical_and_hardest_items_are_picked_by_their_error() -> None:
    image = np.arange(0, 250, 50, dtype=np.uint8)[[3, 0, 4, 1, 2], None, None] * np.ones((1, 4, 4), np.uint8)
    figure = report_figures.reconstructions(report_figures.LIGHT, image, np.zeros_like(image), np.zeros(5, int))
    shown = [[tick.get_text() for tick in axes.get_xticklabels()] for axes in figure.axes]
    assert shown == [[f"{(100 / 255) ** 2:.3f}"], [f"{(200 / 255) ** 2:.3f}"]]


def test_smoothing_is_centred_and_keeps_a_straight_line() -> None:
    line = np.arange(20.0)
    np.testing.assert_allclose(report_curves._smooth(line, 3)[3:-3], line[3:-3])
    np.testing.assert_allclose(report_curves._smooth(line, 3)[[0, -1]], [1.5, 17.5])


def test_the_loss_gets_a_log_axis_beyond_one_decade() -> None:
    steps = np.arange(10.0)
    for values, scale in ((steps + 2, "linear"), (steps + 0.5, "log"), (steps, "linear")):
        figure = report_curves.loss_curves(report_figures.LIGHT, {names.TRAIN_LOSS: (steps, values)})
        assert figure.axes[0].get_yscale() == scale
        assert ("log scale" in figure.axes[0].get_ylabel()) == (scale == "log")


def test_every_slim_panel_has_three_ticks_and_says_if_it_is_log() -> None:
    steps = np.arange(4.0)
    curves = dict.fromkeys((names.TRAIN_LOSS, names.LEARNING_RATE, names.GRAD_NORM), (steps, 10.0**-steps))
    _, rate, norm = report_curves.loss_curves(report_figures.LIGHT, curves).axes
    assert [text.get_text() for text in rate.get_yticklabels()] == ["0", "0.5", "1"]
    assert [text.get_text() for text in norm.get_yticklabels()] == ["0.001", "0.032", "1"]
    assert (rate.get_ylabel(), norm.get_ylabel()) == ("learning\nrate", "gradient\nnorm (log)")


def test_accuracy_is_shown_from_where_its_steep_rise_ends() -> None:
    steps = np.arange(100.0)
    shapes = {"steep": 1 - 0.9 * np.exp(-steps / 5), "slow": 0.1 + steps / 200, "perfect": np.ones(100)}
    limits = {}
    for name, values in shapes.items():
        curves = {names.TRAIN_ACCURACY: (steps, values)}
        (axes,) = report_curves.metric_curves(report_figures.LIGHT, curves, names.ACCURACY).axes
        limits[name] = axes.get_ylim()
        assert limits[name][0] < values[25:].min() and values.max() <= limits[name][1] <= 1
    assert limits["steep"][0] > 0.9 and limits["slow"][0] < 0.1


def test_predicted_over_true_has_equal_axes_and_names_its_line() -> None:
    truth, answer = np.array([0.0, 9.0, np.nan]), np.array([1.0, 5.0, -2.0])
    (axes,) = report_figures.answers(report_figures.LIGHT, "life", answer, truth).axes
    assert axes.get_xlim() == axes.get_ylim()
    assert [line.get_xydata().tolist() for line in axes.lines] == [[[-2, -2], [9, 9]]]
    assert axes.get_aspect() == 1 and legend_of(axes) == ["predicted = true"]


@pytest.mark.parametrize("classes", [2, 4, 10, 20])
def test_recall_stands_beside_its_row_and_its_name_beside_the_matrix(classes: int) -> None:
    with matplotlib.style.context(report_figures.LIGHT.style()):
        figure = report_figures.confusion(report_figures.LIGHT, 1000 * np.eye(classes, dtype=int))
        figure.draw_without_rendering()
    matrix, (recall,) = figure.axes[0], figure.axes[0].child_axes
    assert [text.get_text() for text in recall.get_yticklabels()] == ["100.0%"] * classes
    assert recall.get_yticks().tolist() == list(range(classes))
    name, box = recall.yaxis.label.get_window_extent(), matrix.get_window_extent()
    assert box.x1 < name.x0 and box.y0 < name.y0 and name.y1 < box.y1
    cell = box.width / classes
    assert all(text.get_window_extent().width < cell for text in matrix.texts)


def test_colours_of_classes_stay_apart() -> None:
    rgb = np.array([matplotlib.colors.to_rgb(colour) for colour in report_figures.CLASS_COLOURS])
    apart = np.linalg.norm(rgb[:, None] - rgb[None], axis=-1) + 9 * np.eye(10)
    assert apart.min() > 0.35


def test_the_report_works_without_torch(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", classifier=True)
    block = "import sys\nfor heavy in ('torch', 'lightning', 'megatron', 'nemo', 'pandas', 'matplotlib.pyplot'):\n"
    block += "    sys.modules[heavy] = None\n"
    block += f"from {report_figures.__package__}.report import make_report\nmake_report({str(run)!r})\n"
    subprocess.run([sys.executable, "-c", block], check=True, timeout=120)
    assert (run / names.REPORT_FOLDER / names.REPORT_PAGE).is_file()
