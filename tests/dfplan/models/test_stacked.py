"""Networks in a stack are what they would be alone."""

import math

import pytest
import torch

from dfplan.models.stacked import StackedMLP

SIZES = (3, 8, 9, 2)


def generators(*seeds):
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def inputs(members=3, batch=5, columns=3):
    return torch.randn(members, batch, columns, generator=torch.Generator().manual_seed(0))


def alone(stack, member):
    """The same network from torch's own layers."""
    layers = []
    for weight, bias in zip(stack.weights, stack.biases, strict=True):
        linear = torch.nn.Linear(*weight.shape[1:])
        linear.weight.data, linear.bias.data = weight.data[member].T.clone(), bias.data[member, 0].clone()
        layers += [linear, torch.nn.ReLU()]
    return torch.nn.Sequential(*layers[:-1])


def test_members_compute_what_torchs_own_layers_compute():
    stack, x = StackedMLP(SIZES, generators(1, 2, 3)), inputs()
    expected = torch.stack([alone(stack, member)(x[member]) for member in range(3)])
    assert torch.allclose(stack(x), expected, atol=1e-6)
    assert torch.allclose(stack.alone(1, x[1]), expected[1], atol=1e-6)


def test_gradients_are_those_of_automatic_differentiation():
    stack, x = StackedMLP(SIZES, generators(1, 2, 3)), inputs().requires_grad_()
    stack(x).sin().sum().backward()
    for member in range(3):
        single, own = alone(stack, member), x[member].detach().requires_grad_()
        single(own).sin().sum().backward()
        assert torch.allclose(x.grad[member], own.grad, atol=1e-6)
        for layer, linear in enumerate(m for m in single if isinstance(m, torch.nn.Linear)):
            assert torch.allclose(stack.weights[layer].grad[member], linear.weight.grad.T, atol=1e-6)
            assert torch.allclose(stack.biases[layer].grad[member, 0], linear.bias.grad, atol=1e-6)


def test_a_members_values_come_from_its_own_generator_alone():
    stack, single = StackedMLP(SIZES, generators(7, 8, 9)), StackedMLP(SIZES, generators(8))
    for together, by_itself in zip(stack.parameters(), single.parameters(), strict=True):
        assert torch.equal(together[1:2], by_itself)
        assert together.abs().max() <= 1 / math.sqrt(3)
    g = torch.Generator().manual_seed(7)
    twins = StackedMLP(SIZES, [g, g])
    assert torch.equal(twins.weights[0][0], stack.weights[0][0])
    assert not torch.equal(twins.weights[0][0], twins.weights[0][1])


def test_frozen_parameters_get_no_gradient_but_inputs_do():
    stack, x = StackedMLP(SIZES, generators(1, 2, 3)), inputs().requires_grad_()
    stack(x, frozen=True).sum().backward()
    assert all(p.grad is None for p in stack.parameters())
    frozen = x.grad.clone()
    x.grad = None
    stack(x).sum().backward()
    assert torch.equal(frozen, x.grad) and frozen.abs().sum() > 0


def test_autocast_multiplies_in_bfloat16_and_answers_in_float32():
    stack, x = StackedMLP((3, 64, 64, 1), generators(1, 2, 3)), inputs()
    exact = stack(x)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = stack(x)
    rounded.sum().backward()
    assert rounded.dtype == torch.float32 and stack.weights[1].grad.dtype == torch.float32
    assert 0 < (rounded - exact).abs().max() < 0.02


def test_under_autocast_the_last_layer_is_summed_in_float32():
    """Values near 100 that differ by less than bfloat16 can tell (0.5 there) are told apart."""
    stack, x = StackedMLP((3, 64, 64, 1), generators(1, 2, 3)), inputs()
    with torch.no_grad():
        stack.weights[2].abs_().mul_(300)
    with torch.autocast("cpu", torch.bfloat16):
        y = stack(x)
        hidden = x.bfloat16()
        for weight, bias in zip(stack.weights[:2], stack.biases[:2], strict=True):
            hidden = torch.baddbmm(bias.bfloat16(), hidden, weight.bfloat16()).relu()
    expected = hidden.double() @ stack.weights[2].double() + stack.biases[2].double()
    assert y.abs().max() > 100
    assert torch.allclose(y.double(), expected, rtol=1e-5)


def test_a_target_is_a_copy_in_buffers_that_follows():
    stack = StackedMLP(SIZES, generators(1, 2, 3))
    target = stack.target()
    assert list(target.parameters()) == [] and target.state_dict().keys() == stack.state_dict().keys()
    assert torch.equal(target(inputs()), stack(inputs()))
    before = stack.weights[1].detach().clone()
    with torch.no_grad():
        stack.weights[1].add_(1.0)
    assert torch.equal(target.weights[1], before)
    target.follow(stack, 0.25)
    assert torch.allclose(target.weights[1], before + 0.25)
    assert not target(inputs()).requires_grad


@pytest.mark.parametrize("sizes, members", [((3, 2), 1), ((3, 0, 2), 1), ((3, 4, 2), 0)])
def test_a_stack_without_hidden_layer_or_member_is_refused(sizes, members):
    with pytest.raises(ValueError, match="hidden"):
        StackedMLP(sizes, generators(*range(members)))


@pytest.mark.parametrize("shape", [(5, 3), (2, 5, 3), (3, 5, 4)])
def test_inputs_of_another_shape_are_refused(shape):
    with pytest.raises(ValueError, match=r"expected inputs \(3, batch, 3\)"):
        StackedMLP(SIZES, generators(1, 2, 3))(torch.zeros(shape))
