"""A corridor in which chance decides at one place: a step up from there is carried to the right or to the left."""

from dataclasses import replace

import pytest
import torch

from dfplan.data.tokens import TokenLayout
from dfplan.models import StepOutcomes, TransformerConfig
from dfplan.planning.ask import Ask
from dfplan.planning.choice import choose
from dfplan.planning.model import TrajectoryModel, TrajectoryModelConfig
from dfplan.planning.plan import Plan
from dfplan.planning.plan_config import PlanConfig
from dfplan.planning.trials import mean_time


def test_outcomes_are_learned_with_their_probabilities():
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)
    model = StepOutcomes(1, 1, 4, width=32, octaves=0)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    chance = torch.rand(512, 1, generator=generator)
    before, action = torch.zeros(512, 1), torch.where(torch.arange(512).unsqueeze(1) < 256, 1.0, -1.0)
    after = torch.where(action > 0, torch.where(chance < 0.25, 2.0, -1.0), 0.5)
    for _ in range(300):
        optimizer.zero_grad()
        loss = model.loss(before, action, after)
        loss.backward()
        optimizer.step()
    drawn = model.draw(before, action, generator).detach()
    assert torch.allclose(drawn[256:], torch.tensor(0.5), atol=0.05)
    up = drawn[:256]
    assert (torch.minimum((up - 2).abs(), (up + 1).abs()) < 0.1).all() and 0.2 < (up > 0).float().mean() < 0.3


class Corridor(torch.nn.Module):
    """From x = 0 it leads to the right below, and upwards. At the top, y > 0.9, a step ends at (2, 0.5) or at (-2, 0.5), where
    it stays."""

    def draw(self, observation, action, generator):
        x, y = observation.unbind(-1)
        side = torch.randint(0, 2, (len(x),), generator=generator) * 4.0 - 2
        free = torch.stack([(y < 0.3) | (x > 1.5), x > -1.5], -1)
        carried = torch.stack([side, torch.full_like(side, 0.5)], -1)
        return torch.where((y > 0.9).unsqueeze(-1), carried, observation + 0.1 * action * free)


class Straight(torch.nn.Module):
    def forward(self, observation, target, gap):
        return 10 * (target - observation) / gap.unsqueeze(-1)


class Plausible(torch.nn.Module):
    def __init__(self, longest):
        super().__init__()
        self.longest = longest

    def forward(self, before, after):
        return torch.where((after - before).norm(dim=-1) > self.longest, -9.0, 5.0)


@pytest.fixture
def model():
    config = TrajectoryModelConfig(
        TokenLayout(2, 2, stride=5),
        goal_columns=(0, 1),
        tokens=7,
        model=TransformerConfig(width=8, depth=1, heads=1),
        outcomes=2,
        longest_gap=5,
    )
    model = TrajectoryModel(config)
    model.action_low, model.action_high = torch.full((2,), -2.0), torch.full((2,), 2.0)
    model.outcomes, model.inverse = Corridor(), Straight()
    model.plausibility = Plausible(9)
    return model


SURE = [[0.0, 0.0], [0.5, 0.0], [1.0, 0.0], [1.5, 0.0], [2.0, 0.0], [2.0, 0.5], [2.0, 0.5]]
LUCKY = [[0.0, 0.0], [0.0, 0.5], [0.0, 1.3], [2.0, 0.5], [2.0, 0.5], [2.0, 0.5], [2.0, 0.5]]


def tried(model, **changes):
    """The mean times of the long sure way and of the short lucky one, and which one is chosen."""
    tokens = torch.tensor([SURE, LUCKY])
    plan = Plan(tokens.unsqueeze(2), torch.tensor([5, 4]), torch.zeros(2, 7, dtype=torch.long), tokens)
    config = replace(PlanConfig(trials=64, lost=100.0), **changes)
    goal = Ask(goal=torch.tensor([[2.0, 0.5]] * 2))
    generator = torch.Generator().manual_seed(0)
    time = mean_time(model, plan, goal, 2, config=config, lookahead=2, speed=1.0, generator=generator)
    scores = {} if time is None else {"time": time.view(1, 2)}
    return time, choose(scores, plan.lengths.view(1, 2).float(), config).item()


def test_a_lucky_way_counts_its_mean_time_and_the_sure_one_is_chosen(model):
    (sure, lucky), chosen = tried(model)
    assert abs(sure - 5) < 1 and 30 < lucky < 70 and chosen == 0


def test_where_being_lost_costs_little_luck_is_worth_a_trial(model):
    (sure, lucky), chosen = tried(model, lost=5.0)
    assert lucky < sure and chosen == 1


def test_without_trials_or_outcomes_the_length_decides(model):
    assert tried(model, trials=0) == (None, 1)
    model.outcomes = None
    assert tried(model) == (None, 1)


def test_an_implausible_plan_is_not_followed(model):
    model.plausibility = Plausible(1)
    (sure, lucky), chosen = tried(model)
    assert sure < 6 and lucky == 104 and chosen == 0
    model.plausibility = Plausible(-1)
    (sure, lucky), chosen = tried(model)
    assert (sure, lucky, chosen) == (105, 104, 1)
