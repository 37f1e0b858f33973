"""Plans that stay alive: they move on with what is observed, shrink towards their goal, and end where they are told to."""

import pytest
import torch

from dfplan.data.tokens import TokenLayout
from dfplan.models import TransformerConfig
from dfplan.planning.ask import Ask
from dfplan.planning.choice import SCORES
from dfplan.planning.model import TrajectoryModel, TrajectoryModelConfig
from dfplan.planning.plan_config import PlanConfig
from dfplan.planning.planner import make_plan
from dfplan.planning.stream import CHANGES, Alive, advance

T = 9
START = torch.tensor([[0.0, 0.0], [1.0, 0.0]])
GOAL = torch.tensor([[2.0, 1.0], [2.0, -1.0]])
BOTH = torch.arange(2)


class Counted(torch.nn.Module):
    """A network that counts its evaluations."""

    def __init__(self, network):
        super().__init__()
        self.network, self.calls = network, 0

    def forward(self, *given):
        self.calls += 1
        return self.network(*given)


@pytest.fixture
def model():
    torch.manual_seed(0)
    small = TransformerConfig(width=16, depth=1, heads=2)
    config = TrajectoryModelConfig(
        TokenLayout(2, 1, stride=2), (0, 1), tokens=T, model=small, longest_gap=2, parts=True
    )
    made = TrajectoryModel(config).eval()
    made.diffusion.model = Counted(made.diffusion.model)
    return made


def living(model, horizon=6):
    generator, config = torch.Generator().manual_seed(0), PlanConfig(steps=2)
    plan = make_plan(model, START, Ask(GOAL), config, generator, horizons=torch.full((2, 1), horizon))
    alive = Alive.start(2, model)
    alive.put(BOTH, plan, GOAL)
    return alive, generator, config


def go_on(model, alive, generator, config, observation, played=0.5, rows=BOTH):
    ask = Ask(GOAL[rows])
    plan, left = advance(model, alive, rows, observation, ask, config, generator, played, SCORES)
    alive.put(rows, plan, GOAL[rows], left)
    return plan


def test_each_decision_takes_one_evaluation_and_plans_shrink_to_their_goal(model):
    alive, generator, config = living(model)
    for decision in range(16):
        before, lengths = model.diffusion.model.calls, alive.lengths.clone()
        seen = START + 0.1 * decision
        plan = go_on(model, alive, generator, config, seen)
        assert model.diffusion.model.calls == before + (lengths.max() > 2)  # of the shortest plans both ends are known
        torch.testing.assert_close(plan.observations[:, 0, 0], seen)
        torch.testing.assert_close(plan.observations[BOTH, plan.lengths, 0], GOAL)
        assert (plan.lengths <= lengths).all() and (plan.lengths >= 1).all()
    assert alive.lengths.tolist() == [1, 1] and alive.age.tolist() == [16, 16] and (alive.left == 0.5).all()


def test_a_plan_that_nothing_betters_is_the_old_one_moved_on(model):
    alive, generator, config = living(model)
    old = model.observation.denormalize(alive.tokens[:, :7])
    worse = {"cost": lambda model, plans, ask, each: (torch.arange(len(plans)) % len(CHANGES) > 0) * 99.0}
    plan, left = advance(model, alive, BOTH, START, Ask(GOAL), config, generator, 1.0, worse)
    assert left.tolist() == [5.0, 5.0] == plan.lengths.tolist()
    torch.testing.assert_close(plan.observations[:, 1:, 0], old[:, 2:], atol=1e-5, rtol=0)


def test_rows_live_for_themselves(model):
    alive, generator, config = living(model)
    kept = alive.tokens[1].clone()
    go_on(model, alive, generator, config, START[:1], rows=BOTH[:1])
    assert alive.tokens[1].equal(kept) and alive.age.tolist() == [1, 0]
    assert alive.lives(GOAL).tolist() == [True, True]
    assert alive.lives(GOAL.flip(0)).tolist() == [False, False]
    alive.end(BOTH[1:])
    assert alive.lives(GOAL).tolist() == [True, False]
