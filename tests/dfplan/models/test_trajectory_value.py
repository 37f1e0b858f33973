"""The critic of plans: what it is made of, and that it learns a return."""

import torch

from dfplan.models import TransformerConfig
from dfplan.models.trajectory_value import TrajectoryValue

B, T, C = 64, 6, 4


def critic(seed=0):
    torch.manual_seed(seed)
    return TrajectoryValue(C, TransformerConfig(width=32, depth=1, heads=2, octaves=2))


def plans(seed=0):
    return torch.randn(B, T, C, generator=torch.Generator().manual_seed(seed))


def test_a_value_belongs_to_its_own_plan():
    model, x = critic().eval(), plans()
    with torch.no_grad():
        together, alone = model(x), torch.cat([model(row.unsqueeze(0)) for row in x])
    assert together.shape == (B,)
    assert torch.allclose(together, alone, atol=1e-5)


def test_the_order_of_states_matters():
    model, x = critic().eval(), plans()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    with torch.no_grad():
        assert not torch.allclose(model(x), model(x.flip(1)), atol=1e-3)


def test_the_loss_is_the_mean_squared_error():
    model, x = critic(), plans()
    values = model(x).detach()
    assert torch.isclose(model.loss(x, values + 3.0), torch.tensor(9.0), rtol=1e-5)


def test_it_learns_when_a_plan_reaches_the_goal():
    """Plans stay at a place until a random token and at the goal from then on; the return is minus that time."""
    model, generator = critic(), torch.Generator().manual_seed(0)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)

    def batch():
        arrival = torch.randint(0, T, (B, 1), generator=generator)
        x = torch.randn(B, 1, C, generator=generator).expand(B, T, C)
        there = torch.arange(T) >= arrival
        return torch.where(there.unsqueeze(-1), 0.0, x), -arrival.squeeze(1).float()

    for _ in range(150):
        loss = model.loss(*batch())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    x, returns = batch()
    assert (model(x) - returns).square().mean() < 0.15 * returns.var()
