"""Confidence: futures are spread where something is open, and a place beyond the spread has left the plan."""

import pytest
import torch

from dfplan.data.tokens import TokenLayout
from dfplan.models import TransformerConfig
from dfplan.planning.ask import Ask
from dfplan.planning.confidence import has_left
from dfplan.planning.model import TrajectoryModel, TrajectoryModelConfig
from dfplan.planning.plan import Plan
from dfplan.planning.plan_config import PlanConfig
from dfplan.planning.planner import make_plan

START, GOAL = torch.tensor([[0.0, 0.0], [1.0, 0.0]]), torch.tensor([[2.0, 1.0], [2.0, -1.0]])


def test_a_plan_is_certain_at_both_ends_and_less_between():
    torch.manual_seed(0)
    small = TransformerConfig(width=16, depth=1, heads=2)
    config = TrajectoryModelConfig(
        TokenLayout(2, 1, stride=1), (0, 1), tokens=6, model=small, longest_gap=2, parts=True
    )
    model = TrajectoryModel(config).eval()
    torch.nn.init.normal_(model.diffusion.model.network.out.weight, std=0.3)

    def made(**how):
        horizons, generator = torch.tensor([[4], [3]]), torch.Generator().manual_seed(0)
        return make_plan(model, START, Ask(GOAL), PlanConfig(steps=2, **how), generator, horizons=horizons)

    plain, plan = made(), made(spread=8)
    assert plain.spread is None and "spread" not in plain.scores
    torch.testing.assert_close(plan.observations, plain.observations, rtol=0, atol=0)
    row = torch.arange(2)
    assert plan.spread.shape == (2, 5) and plan.spread[:, 0].tolist() == [0.0, 0.0]
    assert plan.spread[row, plan.lengths].tolist() == pytest.approx([0, 0], abs=1e-5)
    assert (plan.spread[:, 1:3] > 0.01).all() and (plan.scores["spread"] > 0).all()
    again = Plan.from_json(plan.to_json())
    assert again.spread.equal(plan.spread) and again.rows(row[1:]).spread.equal(plan.spread[1:])


def test_a_place_is_left_by_the_spread_of_the_nearest_token():
    path = torch.stack([torch.arange(5.0), torch.zeros(5)], 1).expand(4, 5, 2)
    spread = torch.tensor([[0.0, 1.0, 0.0]]).expand(4, 3)  # at steps 0, 2 and 4
    places = torch.tensor([[0.0, 0.4], [2.0, 0.4], [2.0, 2.4], [9.0, 0.0]])
    assert has_left(places, path, spread, 2, 2.0, 0.3).tolist() == [True, False, True, True]
