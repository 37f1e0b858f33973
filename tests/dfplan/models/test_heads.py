"""The two small networks beside the denoiser: each learns a rule that is known."""

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
        place, wished, gap, action = steps(g)
        return (inverse(place, wished, gap) - action).square().mean()

    fit(inverse, loss, steps=500, learning_rate=5e-3)
    place, wished, gap, action = steps(generator(999))
    with torch.no_grad():
        assert (inverse(place, wished, gap) - action).square().mean() < 0.02, "actions have variance 1"
        near, far = inverse(place, wished, torch.ones(256)), inverse(place, wished, torch.full((256,), 4.0))
        assert near.norm(dim=1).mean() > 2 * far.norm(dim=1).mean(), "the same way in more steps asks for less"


def test_the_critic_knows_where_steps_go_and_how_far():
    """Recorded steps lead along a line, 0.3 to the right. It was shown nothing else, and judges what it never saw."""
    torch.manual_seed(0)
    critic = StepPlausibility(2, noise=(0.08, 0.6), gain=3.0, width=64)
    step = torch.tensor([0.3, 0.0])

    def places(g, batch=256):
        along = 2 * torch.rand(batch, generator=g) - 1
        return torch.stack([along, torch.zeros(batch)], dim=1)

    fit(critic, lambda g: critic.loss(before := places(g), before + step, g))
    before = places(generator(999))
    with torch.no_grad():
        real = critic(before, before + step)
        unreal = {
            "too far": critic(before, before + 3 * step),
            "backwards": critic(before, before - step),
            "off the line": critic(before, before + step + torch.tensor([0.0, 0.5])),
            "in the wrong place": critic(before + torch.tensor([0.0, 0.5]), before + step + torch.tensor([0.0, 0.5])),
        }
    assert real.shape == (256,)
    assert real.mean() > 1
    for name, odds in unreal.items():
        assert odds.mean() < -1, f"{name}: {odds.mean():.2f}"


def test_the_critics_loss_is_chance_before_it_learns_and_falls():
    torch.manual_seed(0)
    critic = StepPlausibility(1, noise=(0.08, 0.6), gain=3.0, width=16)
    torch.nn.init.zeros_(critic.mlp[-1].weight)
    torch.nn.init.zeros_(critic.mlp[-1].bias)
    before = torch.zeros(512, 1)
    chance = critic.loss(before, before, generator())
    torch.testing.assert_close(chance, torch.tensor(2.0).log(), msg="odds of nothing: log 2")
    fit(critic, lambda g: critic.loss(before, before, g), steps=60)
    assert critic.loss(before, before, generator()) < 0.6 * chance
