"""Diffusion inverse dynamics: its distribution against known ones."""

import pytest
import torch

from dfplan.models.diffusion_inverse import DiffusionInverse

N = 512


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def trained(action_of, steps=250, relative=(0,)):
    """A model of two-column states and one-column actions a = action_of(s, s', noise)."""
    torch.manual_seed(0)
    model, g = DiffusionInverse(2, 1, relative, levels=10, width=64), generator()
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(steps):
        s, wished = torch.randn(N, 2, generator=g), torch.randn(N, 2, generator=g)
        loss = model.loss(s, wished, action_of(s, wished, torch.rand(N, 1, generator=g)), g)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model


def test_it_samples_both_of_two_actions_and_not_their_mean():
    """What sets it apart from a regression: a coin decides between a = -0.8 and a = 0.8."""
    model = trained(lambda s, wished, u: torch.where(u < 0.5, -0.8, 0.8))
    zeros = torch.zeros(N, 2)
    a = model.sample(zeros, zeros, generator(1))
    near = (a.abs() - 0.8).abs() < 0.25
    assert near.float().mean() > 0.9
    assert 0.3 < (a > 0).float().mean() < 0.7


def test_it_learns_the_action_that_leads_from_one_state_to_another():
    model = trained(lambda s, wished, u: torch.tanh(wished[:, :1] - s[:, :1]))
    s, wished = torch.randn(N, 2, generator=generator(2)), torch.randn(N, 2, generator=generator(3))
    error = model.sample(s, wished, generator(4), temperature=0.0) - torch.tanh(wished[:, :1] - s[:, :1])
    assert error.abs().mean() < 0.15


def test_in_relative_columns_only_the_difference_counts():
    model = DiffusionInverse(4, 2, relative=(0, 1))
    s, wished = torch.randn(5, 4, generator=generator(0)), torch.randn(5, 4, generator=generator(1))
    moved = torch.tensor([3.0, -7.0, 0.0, 0.0])
    assert torch.allclose(model.pair(s, wished), model.pair(s + moved, wished + moved), atol=1e-5)
    faster = torch.tensor([0.0, 0.0, 1.0, 0.0])
    assert not torch.allclose(model.pair(s, wished), model.pair(s + faster, wished + faster))


def test_actions_stay_in_their_limits_and_follow_the_seed():
    torch.manual_seed(0)
    model = DiffusionInverse(4, 2)
    s = torch.randn(50, 4, generator=generator(0))
    a, again, other = (model.sample(s, -s, generator(seed), temperature=3.0) for seed in (1, 1, 2))
    assert a.shape == (50, 2) and a.abs().max() <= 1
    assert torch.equal(a, again) and not torch.equal(a, other)


def test_without_temperature_there_is_no_chance():
    model, s = DiffusionInverse(4, 2), torch.randn(5, 4, generator=generator(0))
    assert torch.equal(*(model.sample(s, s, generator(seed), temperature=0.0) for seed in (1, 2)))


def test_columns_that_do_not_exist_are_refused():
    with pytest.raises(ValueError, match=r"relative must be different columns of the observation, in 0\.\.3"):
        DiffusionInverse(4, 2, relative=(0, 4))
