"""What `keep` chooses of a micro batch: what it may give, and the one line for what it may not."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from {{cookiecutter.__package_name}}.contracts.errors import UserError
from {{cookiecutter.__package_name}}.training.module import KeepReduction

ROWS = torch.arange(4)


def kept_by(keep: Callable[[Any, Any], Any]) -> dict[str, torch.Tensor]:
    """Return what is kept of four items with their idx, `answer` and `truth`."""
    config: Any = SimpleNamespace(keep=keep)
    _, kept = KeepReduction(config).forward({"idx": ROWS, "truth": ROWS * 2}, {"answer": ROWS * 3})
    return kept


def test_what_is_kept_stands_beside_the_idx() -> None:
    kept = kept_by(lambda output, batch: {"both": output["answer"] + batch["truth"]})
    assert {name: value.tolist() for name, value in kept.items()} == {"both": [0, 5, 10, 15], "idx": [0, 1, 2, 3]}


RULE = "not a dict of tensors with a row for each of 4 items"
NAMES = "use letters, numbers and _, and none of idx, name, file"
LACKS = "the network gives answer, and an item has idx, truth"
WRONG: dict[str, tuple[Any, str]] = {
    "nothing": (lambda output, batch: None, f"keep gives NoneType, {RULE}"),
    "a list": (lambda output, batch: [ROWS], f"keep gives list, {RULE}"),
    "NumPy's arrays": (lambda output, batch: {"a": np.arange(4)}, "keep gives {'a': 'ndarray'}, " + RULE),
    "a row less": (lambda output, batch: {"a": ROWS[1:]}, "keep gives {'a': (3,)}, " + RULE),
    "a scalar": (lambda output, batch: {"a": ROWS.sum()}, "keep gives {'a': ()}, " + RULE),
    "no output": (lambda output, batch: {"a": output["unseen"]}, f"keep wants 'unseen'; {LACKS}"),
    "no key": (lambda output, batch: {"a": batch["unseen"]}, f"keep wants 'unseen'; {LACKS}"),
    **{
        repr(name): (lambda output, batch, name=name: {name: ROWS}, f"keep calls an array {name!r}: {NAMES}")
        for name in ("file", "idx", "name", "a/b", "a b", "1a", "ä", "", 3)
    },
}


@pytest.mark.parametrize("case", WRONG)
def test_what_cannot_be_kept_is_one_line(case: str) -> None:
    keep, answer = WRONG[case]
    with pytest.raises(UserError) as caught:
        kept_by(keep)
    assert str(caught.value) == f"model/results.py: {answer}"


def test_a_missing_key_of_the_models_own_is_no_lack_of_outputs() -> None:
    words: dict[str, str] = {}
    with pytest.raises(KeyError, match="answer"):
        kept_by(lambda output, batch: {words["answer"]: ROWS})
