"""Search: plans get better by what judges them, stay what they were asked for, and the search stops when it must."""

import pytest
import torch
from gaussian import chain, exact

from dfplan.data.tokens import TokenLayout
from dfplan.models import TransformerConfig
from dfplan.planning.ask import Ask
from dfplan.planning.choice import SCORES
from dfplan.planning.constraints import KeepOut
from dfplan.planning.model import TrajectoryModel, TrajectoryModelConfig
from dfplan.planning.plan_config import PlanConfig
from dfplan.planning.planner import Planner, make_plan
from dfplan.planning.search import in_time, taken_back

T, LEVELS = 6, 16
START, GOAL = torch.tensor([[0.0, 0.0], [1.0, 0.0]]), torch.tensor([[2.0, 1.0], [2.0, -1.0]])


def made(parts):
    torch.manual_seed(0)
    small = TransformerConfig(width=16, depth=1, heads=2)
    config = TrajectoryModelConfig(
        TokenLayout(2, 1, stride=1), (0, 1), tokens=T, levels=LEVELS, model=small, longest_gap=2, parts=parts
    )
    return TrajectoryModel(config).eval()


@pytest.fixture(params=[False, True], ids=["tokens", "parts"])
def model(request):
    """With one level for each token, or for each part of it; untrained."""
    model, parts = made(request.param), request.param
    torch.nn.init.normal_((model.diffusion.model.network if parts else model.diffusion.model).out.weight, std=0.3)
    return model


def test_plans_that_are_lost_are_taken_back_like_plans_without_a_fault():
    lengths, generators = torch.tensor([3, 5]), [torch.Generator().manual_seed(0) for _ in range(2)]
    lost, faultless = (torch.full((2, T - 1), fault) for fault in (torch.nan, 0.0))
    levels = [
        taken_back(faults, lengths, LEVELS, one) for faults, one in zip((lost, faultless), generators, strict=True)
    ]
    assert torch.equal(*levels) and bool((levels[0] > 0).any(1).all())


def plan(model, ask=None, scores=None, **options):
    config = PlanConfig(**{"horizons": 5, "steps": 2, "uncertainty": 0.0, "children": 6, **options})
    planner = None if scores is None else Planner(scores=scores)
    generator = torch.Generator().manual_seed(0)
    return make_plan(model, START, ask or Ask(GOAL), config, generator, planner=planner)


def middle(model, candidates, ask, each):
    """Ten times how far the token in the middle of the longest plan is from (3, 3); a shorter plan is as bad as it is far."""
    return 10 * (candidates.observations[:, T // 2, -1] - 3).norm(dim=-1)


def test_a_search_gets_better_with_each_round_and_keeps_both_ends(model):
    found = [plan(model, scores={"cost": middle}, rounds=rounds) for rounds in (0, 1, 4, 16)]
    costs = torch.stack([one.scores["cost"] + one.lengths for one in found])
    assert (costs[1:] <= costs[:-1] + 1e-4).all() and costs[-1].sum() < costs[0].sum() - 2
    last = found[-1]
    torch.testing.assert_close(last.observations[:, 0, 0], START)
    row = torch.arange(2)
    torch.testing.assert_close(last.observations[row, last.lengths, 0], GOAL)
    assert (last.levels[row, last.lengths] <= LEVELS).all() and last.observations.isfinite().all()


def test_the_same_seed_gives_the_same_search_and_no_rounds_give_none(model):
    first, again = (plan(model, rounds=3) for _ in range(2))
    torch.testing.assert_close(first.observations, again.observations, rtol=0, atol=0)
    torch.testing.assert_close(
        plan(model).observations, plan(model, children=3, seconds=9.0).observations, rtol=0, atol=0
    )


def test_a_search_ends_when_its_time_is_over(model):
    endless = plan(model, rounds=10**6, seconds=0.05)
    assert endless.observations.isfinite().all()


def test_search_mends_what_a_constraint_forbids():
    model = made(False)
    model.diffusion = exact(chain(T), LEVELS)
    model.plausibility = None
    away = KeepOut(torch.tensor([[1.5, 0.3]]), 0.4, (0, 1), weight=5.0)
    ask, scores = Ask(GOAL, constraints=away), {name: SCORES[name] for name in ("violation",)}
    options = {"horizons": 1, "matrix": "pyramid", "eta": 1.0}
    before, after = (plan(model, ask, scores, rounds=rounds, **options).scores["violation"] for rounds in (0, 8))
    assert (after <= before).all() and float(after.sum()) < 0.5 * max(float(before.sum()), 0.5)


def test_a_plan_of_another_length_leads_along_the_same_path():
    x = torch.arange(5.0).view(1, 5, 1).expand(2, 5, 1)
    longer = in_time(x, torch.tensor([2, 4]), torch.tensor([4, 2]))
    assert longer[..., 0].tolist() == [[0.0, 0.5, 1.0, 1.5, 2.0], [0.0, 2.0, 4.0, 4.0, 4.0]]
