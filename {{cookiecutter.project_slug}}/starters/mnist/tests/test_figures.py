"""What the report shows of the digits: which pictures, of which items, with which words."""

import io

import matplotlib.image
import numpy as np
import pytest

from {{cookiecutter.__package_name}}.drawing.theme import DOTS_PER_INCH, LIGHT, SIZE, render
from {{cookiecutter.__package_name}}.model import figures

ITEMS = 60


def outputs_of(decoder=False, classifier=False):
    """Return what evaluation keeps of a network with these heads; the classifier is wrong about three items."""
    random = np.random.default_rng(0)
    label = np.arange(ITEMS) % 10
    image = random.integers(0, 256, (ITEMS, 28, 28), dtype=np.uint8)
    arrays = {"idx": np.arange(ITEMS), "label": label, "image": image}
    arrays["latent"] = (np.eye(10)[label] + random.normal(0, 0.1, (ITEMS, 10))).astype(np.float32)
    if decoder:
        arrays["reconstruction"] = image // 2
    if classifier:
        answer = np.where(np.arange(ITEMS) < 3, (label + 1) % 10, label)
        arrays["probability"] = np.eye(10, dtype=np.float32)[answer]
    return arrays


def drawn(outputs):
    """Return the pictures by name."""
    return {drawing.name: drawing for drawing in figures.pictures(outputs, {})}


def answered(label, probability):
    image = np.arange(len(label), dtype=np.uint8)[:, None, None] * np.ones((1, 4, 4), np.uint8)
    latent = np.full((len(label), 2), np.nan)
    return drawn({"label": label, "image": image, "latent": latent, "probability": probability})


@pytest.mark.parametrize(
    ("heads", "names"),
    [
        (["decoder"], ["reconstructions", "latent"]),
        (["classifier"], ["latent", "confusion", "mistakes"]),
        (["decoder", "classifier"], ["reconstructions", "latent", "confusion", "mistakes"]),
    ],
    ids=str,
)
def test_every_network_gets_its_pictures_and_all_can_be_drawn(heads, names):
    found = drawn(outputs_of(**dict.fromkeys(heads, True)))
    assert list(found) == names
    for drawing in found.values():
        assert drawing.caption.endswith(".") and "\n" not in drawing.caption
        height, width = matplotlib.image.imread(io.BytesIO(render(drawing.draw).dark)).shape[:2]
        np.testing.assert_allclose((width, height), np.array(SIZE) * DOTS_PER_INCH)


def test_accuracy_is_a_share():
    assert figures.SHARES == ("accuracy",)


def test_captions_say_how_many_and_how_well():
    outputs = outputs_of(decoder=True, classifier=True)
    found = drawn(outputs)
    error = (((outputs["image"] - outputs["image"] // 2) / 255.0) ** 2).mean()
    assert f"The mean over all 60 test digits is {error:.4f}." in found["reconstructions"].caption
    assert "60 of 60 are drawn" in found["latent"].caption
    assert "3 of 60 test digits are classified wrong" in found["confusion"].caption


def test_latents_that_are_not_finite_are_not_drawn():
    outputs = outputs_of(decoder=True)
    outputs["latent"][7, 0] = np.inf
    assert list(drawn(outputs)) == ["reconstructions"]


def test_the_worst_mistakes_come_first():
    probability = np.array([[0.6, 0.4], [0.1, 0.9], [0.2, 0.8], [0.7, 0.3]])  # the last one is right
    shown = answered(np.array([1, 0, 0, 0]), probability)["mistakes"].draw.keywords
    assert shown["image"][:, 0, 0].tolist() == [1, 2, 0]
    assert shown["caption"] == [("0 → 1", "90.0% sure"), ("0 → 1", "80.0% sure"), ("1 → 0", "60.0% sure")]


def test_no_more_mistakes_are_shown_than_there_is_room_for():
    shown = answered(np.zeros(300, int), np.tile([[0.1, 0.9]], (300, 1)))["mistakes"].draw.keywords
    assert [len(shown[name]) for name in ("image", "caption")] == [24, 24]


def test_a_perfect_classifier_has_no_mistakes():
    found = answered(np.arange(3), np.eye(3))
    assert list(found) == ["confusion"]
    assert "0 of 3 test digits are classified wrong" in found["confusion"].caption


def test_rows_of_the_confusion_matrix_are_the_true_classes():
    found = answered(np.array([0, 0, 2]), np.eye(3)[[0, 1, 1]])
    assert found["confusion"].draw.keywords["counts"].tolist() == [[1, 1, 0], [0, 0, 0], [0, 1, 0]]


@pytest.mark.parametrize("items", [1, 24], ids=str)
def test_few_and_many_mistakes_keep_their_size(items):
    images, captions = np.zeros((items, 9, 7), np.uint8), [("1 → 2", "99% sure")] * items
    picture = render(lambda theme: figures.mistakes(theme, images, captions))
    inches = np.array(SIZE)[::-1]
    shape = matplotlib.image.imread(io.BytesIO(picture.light)).shape[:2]
    np.testing.assert_allclose(shape, inches * DOTS_PER_INCH)


def test_typical_and_hardest_items_are_picked_by_their_error():
    image = np.arange(0, 250, 50, dtype=np.uint8)[[3, 0, 4, 1, 2], None, None] * np.ones((1, 4, 4), np.uint8)
    figure = figures.reconstructions(LIGHT, image, np.zeros_like(image), np.zeros(5, int))
    shown = [[tick.get_text() for tick in axes.get_xticklabels()] for axes in figure.axes]
    assert shown == [[f"{(100 / 255) ** 2:.3f}"], [f"{(200 / 255) ** 2:.3f}"]]
