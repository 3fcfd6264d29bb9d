"""Element-wise functions: what plain torch computes, the same when they are compiled, and rotary positions."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from {{cookiecutter.__package_name}}.contracts.config import NetworkConfig
from {{cookiecutter.__package_name}}.layers import elementwise, rotary

CONFIG = NetworkConfig(num_layers=1, hidden_size=16, num_attention_heads=2)
S, B, HEADS, SIZE = 5, 3, 2, 8


def random(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)), requires_grad=True)


ANGLES = tuple(part.detach() for part in rotary(torch.arange(S)[None], SIZE, torch.float32))
CASES = {
    "norm": (elementwise.norm, (random(S, B, 16), random(16), random(16), 1e-5)),
    "gelu": (elementwise.gelu, (random(S, B, 16), random(16))),
    "add": (elementwise.add, (random(S, B, 16), random(S, B, 16), random(16))),
    "turned_heads": (
        elementwise.turned_heads,
        (random(S, B, 3 * HEADS * SIZE), random(3 * HEADS * SIZE), SIZE, *ANGLES),
    ),
}


def outputs_and_gradients(function, arguments):
    given = function(*arguments)
    outputs = given if isinstance(given, tuple) else (given,)
    inputs = [x for x in arguments if isinstance(x, torch.Tensor) and x.requires_grad]
    loss = sum((output * torch.arange(output.numel()).view_as(output)).sum() for output in outputs)
    return (*outputs, *torch.autograd.grad(loss, inputs))


@pytest.mark.parametrize("case", CASES)
def test_a_function_is_compiled_whole_and_gives_the_same(case):
    function, arguments = CASES[case]
    compiled = torch.compile(function, backend="aot_eager", fullgraph=True)  # which needs no C compiler
    found, expected = (outputs_and_gradients(each, arguments) for each in (compiled, function))
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_nothing_is_compiled_on_a_cpu_or_where_it_is_not_wanted(monkeypatch):
    monkeypatch.setattr(elementwise, "_compiled", lambda function: pytest.fail("it was compiled"))
    for wanted in (True, False):
        config = replace(CONFIG, join_kernels=wanted)
        x, bias = CASES["gelu"][1]
        assert torch.equal(elementwise.joined(elementwise.gelu, config, x, bias), F.gelu(x + bias))


def test_on_a_gpu_functions_are_compiled_if_there_is_a_compiler(monkeypatch):
    class OnGpu(torch.Tensor):
        is_cuda = True

    x, config = torch.zeros(2).as_subclass(OnGpu), replace(CONFIG, join_kernels=True)
    monkeypatch.setattr(elementwise, "_compiled", lambda function: lambda *_: "compiled")
    for there_is_one, answer in ((True, "compiled"), (False, "as it is")):
        monkeypatch.setattr(elementwise, "has_compiler", lambda found=there_is_one: found)
        assert elementwise.joined(lambda _: "as it is", config, x) == answer


def test_a_compiler_that_is_missing_is_told_once(monkeypatch, tmp_path, capsys):
    elementwise.has_compiler.cache_clear()
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CC", raising=False)
    try:
        assert not elementwise.has_compiler() and not elementwise.has_compiler()
    finally:
        elementwise.has_compiler.cache_clear()
    assert capsys.readouterr().err.count("there is no C compiler (cc, gcc, clang) here") == 1


def test_heads_are_split_with_queries_keys_and_values_side_by_side():
    combined, bias = random(S, B, 3 * HEADS * SIZE), random(3 * HEADS * SIZE)
    parts = torch.stack(elementwise.split_heads(combined, bias, SIZE), dim=3)
    assert torch.equal(parts.flatten(2), combined + bias)


def test_turning_is_a_rotation_of_pairs_by_the_position():
    x, position = random(S, B, HEADS, SIZE).detach(), torch.tensor([[3, 0, 7, 1, 2]])
    turned = elementwise.turn(x, *rotary(position, SIZE, torch.float32))
    frequency = 1 / 10_000 ** (torch.arange(0, SIZE, 2) / SIZE)
    pairs = torch.complex(*x.chunk(2, dim=-1)) * torch.exp(1j * position.t()[:, :, None, None] * frequency)
    torch.testing.assert_close(turned, torch.cat((pairs.real, pairs.imag), dim=-1))


def test_scores_depend_on_how_far_positions_are_apart_only():
    query, key = random(1, 1, 1, SIZE).detach(), random(1, 1, 1, SIZE).detach() + 1

    def score(one, other):
        turned = [
            elementwise.turn(x, *rotary(torch.tensor([[at]]), SIZE, torch.float32))
            for x, at in ((query, one), (key, other))
        ]
        return (turned[0] * turned[1]).sum()

    torch.testing.assert_close(score(7, 4), score(103, 100))
    assert not torch.isclose(score(7, 4), score(7, 5))
