"""differences.py: what cannot be compared is never equal."""

import math

import pytest
import torch

from {{cookiecutter.__package_name}}.proof import differences
from {{cookiecutter.__package_name}}.proof.differences import Differences


def test_what_cannot_be_compared_is_never_equal():
    bounds = Differences(1.0, 1.0, 1.0)
    assert not Differences(differences._largest_difference([1.0], [1.0, 2.0]), 0.0, 0.0).within(bounds)
    assert not Differences(0.0, differences._largest_difference([math.nan], [1.0]), 0.0).within(bounds)
    weights = ({"a": torch.ones(1)}, {"b": torch.ones(1)})
    assert not Differences(0.0, 0.0, differences._largest_weight_difference(*weights)).within(bounds)
    assert differences._largest_difference([2.0, 1000.0], [2.0, 1001.0]) == pytest.approx(1 / 1001)
