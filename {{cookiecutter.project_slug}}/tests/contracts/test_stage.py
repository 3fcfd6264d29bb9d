"""Stages: what one gives that the next stage, or the loss, cannot take is refused in one line."""

import pytest
import torch
from stand_ins import NumberConfig, NumberStage

from {{cookiecutter.__package_name}}.contracts.errors import UserError


@pytest.fixture
def stage(megatron, monkeypatch):
    """Return a stage that gives an output, of a network of a sequence of 6 in 4 features."""

    def build(output, post_process, **split):
        config = NumberConfig(sequence_length=6)
        for name, value in split.items():
            setattr(config, name, value)
        monkeypatch.setattr(NumberStage, "forward", lambda self, batch: output)
        return NumberStage(config, post_process=post_process)

    return build


BATCH = {"idx": torch.arange(5)}


@pytest.mark.parametrize(
    ("output", "words"),
    [
        (
            torch.zeros(5, 6, 4),
            r"a stage gives \(5, 6, 4\) to the next one, not \(sequence, items, hidden\) \(6, 5, 4\)",
        ),
        (torch.zeros(6, 5, 3), r"a stage gives \(6, 5, 3\) to the next one"),
        ({"answer": torch.zeros(5)}, r"a stage gives dict to the next one"),
    ],
)
def test_a_stage_that_gives_what_cannot_be_sent_is_refused(output, words, stage):
    with pytest.raises(UserError, match=rf"^model/network\.py: {words}"):
        stage(output, post_process=False)(BATCH)


@pytest.mark.parametrize(
    ("output", "gives"),
    [
        (torch.zeros(5, 10), "Tensor"),
        ({"answer": 1.0, "right": torch.zeros(5)}, r"{'answer': 'float', 'right': \(5,\)}"),
        ({"answer": None}, "{'answer': 'NoneType'}"),
        (None, "NoneType"),
        ({"answer": torch.zeros(10, 5)}, r"{'answer': \(10, 5\)}"),
        ({"right": torch.zeros(5), "answer": torch.zeros(())}, r"{'right': \(5,\), 'answer': \(\)}"),
    ],
)
def test_a_last_stage_that_gives_no_row_for_each_item_is_refused(output, gives, stage):
    words = rf"^model/network\.py: the last stage gives {gives}, not a dict of tensors with a row for each of 5 items$"
    with pytest.raises(UserError, match=words):
        stage(output, post_process=True)(BATCH)


def test_what_fits_is_passed_on(stage):
    hidden, answer = torch.zeros(6, 5, 4), {"answer": torch.zeros(5, 7), "number": torch.zeros(5)}
    assert stage(hidden, post_process=False)(BATCH) is hidden
    assert stage(answer, post_process=True)(BATCH) is answer


def test_with_sequence_parallel_a_stage_gives_its_part_of_the_sequence(stage):
    split = {"sequence_parallel": True, "tensor_model_parallel_size": 2}
    part = torch.zeros(3, 5, 4)
    assert stage(part, post_process=False, **split)(BATCH) is part
    with pytest.raises(UserError, match=r"not \(sequence, items, hidden\) \(3, 5, 4\)"):
        stage(torch.zeros(6, 5, 4), post_process=False, **split)(BATCH)


def test_a_stage_takes_what_the_one_before_it_gave(stage):
    stage, hidden = stage({}, post_process=False), torch.zeros(6, 5, 4)
    assert stage.input_tensor is None
    for given in (hidden, [hidden]):
        stage.set_input_tensor(given)
        assert stage.input_tensor is hidden
    stage.set_input_tensor(None)
    assert stage.input_tensor is None


MADE_OF = {
    "a function of it": lambda given: {"answer": torch.zeros(5), "more": given.relu().sum((0, 2))},
    "itself": lambda given: given,
    "another": lambda given: torch.ones(6, 5, 4, requires_grad=True) * 2,
    "a detached copy": lambda given: given.detach() + torch.ones(1, requires_grad=True),
    "no function": lambda given: torch.zeros(6, 5, 4),
}


@pytest.mark.parametrize("was_computed", [False, True])
@pytest.mark.parametrize("made", MADE_OF)
def test_a_stage_that_leads_no_gradients_to_the_one_before_is_refused_in_training(made, was_computed, stage):
    given = torch.ones(6, 5, 4, requires_grad=True)
    given = given.exp() if was_computed else given
    output = MADE_OF[made](given)
    later = stage(output, post_process=isinstance(output, dict))
    later.pre_process = later.goes_on = False
    later.set_input_tensor(given)
    with torch.no_grad():
        assert later(BATCH) is output
    if made in ("a function of it", "itself"):
        assert later(BATCH) is output
    else:
        with pytest.raises(UserError, match=r"a stage that is not the first must go on from self\.input_tensor, so"):
            later(BATCH)
