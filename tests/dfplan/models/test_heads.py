"""The two small networks beside the denoiser: each learns a rule that is known."""

import math

import pytest
import torch

from dfplan.models import InverseDynamics, StepPlausibility


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def fit(module, loss, steps=150, learning_rate=3e-3):
    optimizer = torch.optim.Adam(module.parameters(), learning_rate)
    for step in range(steps):
        optimizer.zero_grad()
        loss(generator(step)).backward()
        optimizer.step()
    return module.eval()


def test_inverse_dynamics_learns_the_action_that_leads_there():
    """A point that moves by its action in each step: the action is the way divided by the steps."""
    torch.manual_seed(0)
    inverse = InverseDynamics(2, 2, longest_gap=4, width=32)

    def steps(g, batch=256):
        place, action = torch.randn(batch, 2, generator=g), torch.randn(batch, 2, generator=g)
        gap = torch.randint(1, 5, (batch,), generator=g).float()
        return place, place + gap.unsqueeze(1) * action, gap, action

    def loss(g):
        place, target, gap, action = steps(g)
        return (inverse(place, target, gap) - action).square().mean()

    fit(inverse, loss, steps=500, learning_rate=5e-3)
    place, target, gap, action = steps(generator(999))
    with torch.no_grad():
        assert (inverse(place, target, gap) - action).square().mean() < 0.02, "actions have variance 1"
        near, far = inverse(place, target, torch.ones(256)), inverse(place, target, torch.full((256,), 4.0))
        assert near.norm(dim=1).mean() > 2 * far.norm(dim=1).mean(), "the same way in more steps asks for less"


def test_plausible_steps_lie_where_the_data_are_and_are_as_long():
    """Recorded steps lead along a line, 0.3 to the right. Training has no other ones."""
    torch.manual_seed(0)
    judge = StepPlausibility(2, noise=(0.08, 0.6), gain=3.0, width=64)
    step = torch.tensor([0.3, 0.0])

    def places(g, batch=256):
        along = 2 * torch.rand(batch, generator=g) - 1
        return torch.stack([along, torch.zeros(batch)], dim=1)

    fit(judge, lambda g: judge.loss(before := places(g), before + step, g))
    before = places(generator(999))
    with torch.no_grad():
        real = judge(before, before + step)
        unreal = {
            "too far": judge(before, before + 3 * step),
            "backwards": judge(before, before - step),
            "off the line": judge(before, before + step + torch.tensor([0.0, 0.5])),
            "in the wrong place": judge(before + torch.tensor([0.0, 0.5]), before + step + torch.tensor([0.0, 0.5])),
        }
    assert real.shape == (256,)
    assert real.mean() > 1
    for name, odds in unreal.items():
        assert odds.mean() < -1, f"{name}: {odds.mean():.2f}"


def test_the_loss_of_plausibility_is_chance_before_training_and_falls():
    torch.manual_seed(0)
    judge = StepPlausibility(1, noise=(0.08, 0.6), gain=3.0, width=16)
    torch.nn.init.zeros_(judge.mlp[-1].weight)
    torch.nn.init.zeros_(judge.mlp[-1].bias)
    before = torch.zeros(512, 1)
    chance = judge.loss(before, before, generator())
    torch.testing.assert_close(chance, torch.tensor(2.0).log(), msg="odds of nothing: log 2")
    fit(judge, lambda g: judge.loss(before, before, g), steps=60)
    assert judge.loss(before, before, generator()) < 0.6 * chance


def test_false_steps_are_as_far_off_as_the_range_of_noise_says_and_steps_enter_with_their_gain():
    judge = StepPlausibility(2, noise=(0.5, 0.5), gain=4.0, width=16)
    seen = []
    judge.mlp.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0]))
    before, after = torch.randn(20_000, 2, generator=generator()), torch.randn(20_000, 2, generator=generator(1))
    judge.loss(before, after, generator(2))
    real, false = seen
    torch.testing.assert_close(real[:, -2:], 4 * (after - before))
    moved = false[:, 2:4] - after
    assert abs(moved.std().item() - 0.5) < 0.01 and abs(moved.mean().item()) < 0.02, "the end is always moved"
    still = (false[:, :2] == before).all(1)
    alike = ((false[:, :2] - before) - moved).abs().amax(1) < 1e-5
    assert abs(still.float().mean() - 1 / 3) < 0.02 and abs(alike.float().mean() - 1 / 3) < 0.02
    assert not bool((still & alike).any())


@pytest.mark.parametrize(
    ("noise", "gain"),
    [
        ((0.0, 0.6), 3.0),
        ((0.6, 0.08), 3.0),
        ((0.1, math.inf), 3.0),
        ((math.nan, 1.0), 3.0),
        ((0.1, 0.6), 0.0),
        ((0.1, 0.6), math.nan),
    ],
)
def test_a_range_of_noise_is_not_empty_and_gains_are_positive(noise, gain):
    with pytest.raises(
        ValueError, match="noise must be a range of finite numbers above 0 and gain one such number, got"
    ):
        StepPlausibility(2, noise=noise, gain=gain)
