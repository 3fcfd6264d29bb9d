"""What the report shows of proteins: which pictures, of what, with which words."""

import io

import matplotlib.image
import matplotlib.style
import numpy as np
import pytest

from {{cookiecutter.__package_name}}.drawing.theme import DOTS_PER_INCH, LIGHT, SIZE, render
from {{cookiecutter.__package_name}}.model import figures
from {{cookiecutter.__package_name}}.model.item import AMINO_ACIDS

ITEMS, LENGTH = 40, 12
RANDOM = np.random.default_rng(0)
NAMES = np.array([f"P{n:05d}" for n in range(ITEMS)])
EMBEDDING = RANDOM.normal(size=(ITEMS, 6)).astype(np.float32)


def masked():
    masked = RANDOM.integers(0, 5, (ITEMS, 20))
    return {"idx": np.arange(ITEMS), "name": NAMES, "masked": masked, "right": masked // 2, "embedding": EMBEDDING}


def labelled(answer, label):
    """Return what evaluation keeps of a finetuned network; all is labelled."""
    there = {"label": label, "is_labelled": np.ones(label.shape, bool), "embedding": EMBEDDING[: len(label)]}
    return {"idx": np.arange(len(label)), "name": NAMES[: len(label)], **there, **answer}


def classified(label, answer, classes=3):
    """Return what is kept of a classifier that gives some answers."""
    label, answer = np.array(label), np.array(answer)
    probability = np.full((*label.shape, classes), 0.1 / (classes - 1))
    np.put_along_axis(probability, answer[..., None], 0.9, axis=-1)
    return labelled({"probability": probability.astype(np.float32)}, label)


def valued(label, value):
    return labelled({"value": np.array(value, np.float32)}, np.array(label, np.float32))


def drawn(outputs, names=()):
    """Return the pictures by name, of a run whose classes have these names."""
    settings = {"model": {"classes": list(names)}}
    return {drawing.name: drawing for drawing in figures.pictures(outputs, settings)}


def rows_of(found):
    return found["mistakes"].draw.keywords["rows"]


LABEL = np.arange(ITEMS) % 3
RESIDUES = RANDOM.integers(0, 3, (ITEMS, LENGTH))
VALUES = RANDOM.normal(size=(ITEMS, LENGTH))
OUTPUTS = {
    "masked": (masked(), ["residues", "embedding"]),
    "packed": ({key: a for key, a in masked().items() if key != "embedding"}, ["residues"]),
    "classes": (classified(LABEL, LABEL // 2), ["embedding", "confusion", "roc", "mistakes"]),
    "values": (valued(LABEL, LABEL / 2), ["embedding", "values", "mistakes"]),
    "classes of residues": (classified(RESIDUES, RESIDUES // 2), ["embedding", "confusion", "roc", "mistakes"]),
    "values of residues": (valued(VALUES, VALUES / 2), ["embedding", "values"]),
}


@pytest.mark.parametrize(("outputs", "names"), OUTPUTS.values(), ids=OUTPUTS)
def test_every_network_gets_its_pictures_and_all_can_be_drawn(outputs, names):
    found = drawn(outputs)
    assert list(found) == names
    for drawing in found.values():
        assert drawing.caption.endswith(".") and "\n" not in drawing.caption
        height, width = matplotlib.image.imread(io.BytesIO(render(drawing.draw).dark)).shape[:2]
        np.testing.assert_allclose((width, height), np.array(SIZE) * DOTS_PER_INCH)


def test_shares_are_told():
    assert figures.SHARES == ("accuracy", "auroc", "fill")


def test_what_is_not_finite_is_not_drawn():
    outputs = classified(LABEL, LABEL // 2)
    outputs["embedding"] = outputs["embedding"] * np.nan
    outputs["probability"][3, 1] = np.inf
    assert list(drawn(outputs)) == []
    assert list(drawn(valued([1, 2], [1, np.nan]))) == ["embedding"]


# Masked residues


def test_amino_acids_stand_by_frequency_with_the_share_that_is_guessed_right():
    masked, right = np.zeros((2, 20), int), np.zeros((2, 20), int)
    a, g = AMINO_ACIDS.index("A"), AMINO_ACIDS.index("G")
    masked[:, g], masked[:, a] = (30, 30), (10, 10)
    right[0, g], right[:, a] = 15, (5, 10)
    drawing = drawn({"masked": masked, "right": right})["residues"]
    assert "Of 80 masked residues of the test set 37.5% are guessed right." in drawing.caption
    (axes,) = drawing.draw(LIGHT).axes
    assert [tick.get_text() for tick in axes.get_xticklabels()][:2] == ["G", "A"]
    accuracy, share = ([bar.get_height() for bar in bars][:3] for bars in axes.containers)
    assert accuracy == [0.25, 0.75, 0] and share == [0.75, 0.25, 0]


# Embeddings


def test_embeddings_have_the_colours_of_their_classes_or_values():
    keywords = drawn(classified([0, 1, 1], [0, 0, 0], 2), ["nucleus", "secreted"])["embedding"].draw.keywords
    assert keywords["label"].tolist() == [0, 1, 1] and keywords["names"] == ["nucleus", "secreted"]
    assert drawn(valued([1, 2, 4], [0, 0, 0]))["embedding"].draw.keywords["value"].tolist() == [1, 2, 4]


def test_of_many_embeddings_some_are_drawn_from_the_first_to_the_last(monkeypatch):
    monkeypatch.setattr(figures, "MOST_POINTS", 10)
    drawing = drawn(masked())["embedding"]
    assert np.array_equal(drawing.draw.keywords["latent"], EMBEDDING[::4])
    assert "of 10 test proteins" in drawing.caption


# Answers


def test_confusion_counts_by_true_class_with_the_names_of_the_classes():
    found = drawn(classified([0, 0, 2], [0, 1, 1]), "xyz")["confusion"]
    assert found.draw.keywords["counts"].tolist() == [[1, 1, 0], [0, 0, 0], [0, 1, 0]]
    assert found.draw.keywords["names"] == list("xyz")
    assert "2 of 3 test proteins are classified wrong" in found.caption


def test_classes_without_names_are_called_by_their_numbers():
    _, confusion, *_ = figures.pictures(classified([0, 2], [0, 2]), {})
    assert confusion.draw.keywords["names"] == ["0", "1", "2"]


def test_only_what_is_labelled_is_counted():
    outputs = classified([[0, 1, 1], [0, 0, 1]], [[1, 1, 1], [0, 0, 0]], 2)
    outputs["is_labelled"][0, 0] = False
    found = drawn(outputs)
    assert found["confusion"].draw.keywords["counts"].tolist() == [[2, 0], [1, 2]]
    assert "1 of 5 test residues are classified wrong" in found["confusion"].caption
    assert rows_of(found) == [("P00001", "3", "1", "33.3%")]


def legend_of(drawing):
    figure = drawing.draw(LIGHT)
    legend = figure.axes[0].get_legend() or figure.legends[0]
    return [text.get_text() for text in legend.get_texts()]


def test_each_class_that_can_be_told_apart_has_a_curve_and_its_area():
    label, answer = [0, 0, 1, 1, 1, 1], [0, 1, 1, 1, 1, 0]
    found = drawn(classified(label, answer), ["x", "y", "never"])["roc"]
    assert legend_of(found) == ["0.625  x", "0.625  y", "0.500  chance"]
    assert found.caption.endswith("The mean AUROC of 3 classes is 0.625.")
    assert legend_of(drawn(classified(label, answer, 2), "xy")["roc"]) == ["0.625  y", "0.500  chance"]
    assert "roc" not in drawn(classified([1, 1], [0, 1]))


@pytest.mark.parametrize("count", [figures.FEW_CLASSES, 20])
def test_all_names_have_room_beside_the_curves(count):
    label = np.arange(ITEMS) % count
    names = [f"{n} a name that is far too long" for n in range(count)]
    found = drawn(classified(label, label, count), names)["roc"]
    with matplotlib.style.context(LIGHT.style()):
        figure = found.draw(LIGHT)
        figure.draw_without_rendering()
    (legend,) = figure.legends or [figure.axes[0].get_legend()]
    box, whole, curves = legend.get_window_extent(), figure.bbox, figure.axes[0].get_window_extent()
    assert whole.x0 <= box.x0 and box.x1 <= whole.x1 and whole.y0 <= box.y0 and box.y1 <= whole.y1
    assert curves.x1 <= box.x0 or count <= figures.FEW_CLASSES


def test_the_most_confident_mistakes_come_first_with_their_names():
    outputs = classified([0, 0, 1, 1], [0, 1, 0, 1], 2)
    outputs["probability"][1] = (0.4, 0.6)
    assert rows_of(drawn(outputs, "xy")) == [("P00002", "y", "x", "90.0%"), ("P00001", "x", "y", "60.0%")]
    assert "mistakes" not in drawn(classified([0, 1], [0, 1]))


def test_no_more_mistakes_are_shown_than_there_is_room_for():
    assert len(rows_of(drawn(classified(np.zeros(ITEMS, int), np.ones(ITEMS, int))))) == figures.MOST_ROWS


def test_the_largest_errors_come_first_with_their_names():
    found = drawn(valued([1, 2, 3], [1.5, 2, 1]))
    assert rows_of(found)[:2] == [("P00002", "3.000", "1.000", "-2.000"), ("P00000", "1.000", "1.500", "0.5000")]
    keywords = found["values"].draw.keywords
    assert (keywords["truth"].tolist(), keywords["answer"].tolist()) == ([1, 2, 3], [1.5, 2, 1])


def test_a_table_shows_all_its_rows_and_shortens_what_is_too_long():
    row = ("a name that is far too long for its column", "x", "y", "z")
    figure = figures.table(LIGHT, "Title", ("one", "two", "three", "four"), [row] * figures.MOST_ROWS)
    texts = [text.get_text() for text in figure.axes[0].texts]
    assert texts[:4] == ["one", "two", "three", "four"]
    assert texts[4:] == ["a name that is far too …", "x", "y", "z"] * figures.MOST_ROWS
    low, high = sorted(figure.axes[0].get_ylim())
    assert all(low < text.get_position()[1] < high for text in figure.axes[0].texts)
