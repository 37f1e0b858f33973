"""All learners on data that are no maze's: falls with rewards, goals in the last columns, and neither."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from dfplan.agents.diffuser import DiffuserConfig, DiffuserModel
from dfplan.agents.mppi import LearnedMPPIAgent
from dfplan.agents.offline.bc import BC, BCConfig, BehaviorCloningAgent
from dfplan.benchmarks.recipes.budget import STEPS, budget_of
from dfplan.benchmarks.recipes.recipe import RECIPES
from dfplan.data.features import Features
from dfplan.data.returns import discounted_sums
from dfplan.data.sparse_paths import ReturnPaths
from dfplan.data.spec import Spec
from dfplan.data.tokens import TokenLayout
from dfplan.data.trajectories import Trajectories
from dfplan.data.transitions import Replay
from dfplan.training.loop import train

LEARNERS = [
    "actions",
    "bc",
    "iql",
    "cql",
    "td3-bc",
    "awac",
    "gciql",
    "diffuser",
    "decision-diffuser",
    "diffusion-policy",
    "gru",
    "dv",
    "dynamics",
]
FROM_REWARDS = {"iql", "cql", "td3-bc", "awac", "dv"}
LOW, HIGH = np.float32([-0.4, 0.0, 2.0]), np.float32([0.1, 3.0, 2.5])


def recorded(columns, lengths, name, rewards=0.0, falls=False, goal=()):
    """Smooth random observations, and actions with limits of their own in each column."""
    rng, steps, starts = np.random.default_rng(0), sum(lengths), np.cumsum([0, *lengths[:-1]])
    ends = np.zeros(steps, bool)
    ends[np.cumsum(lengths) - 1] = falls
    return Trajectories(
        np.cumsum(rng.normal(size=(steps, columns)), axis=0).astype(np.float32) / 10,
        rng.uniform(LOW, HIGH, size=(steps, 3)).astype(np.float32),
        np.full(steps, rewards, np.float32),
        starts.astype(np.int64),
        name,
        terminations=ends,
        last_observations=rng.normal(size=(len(lengths), columns)).astype(np.float32),
        features=Features(goal_columns=goal),
    )


DATA = {
    "falls": recorded(5, [13, 40, 22, 31], "falls", rewards=1.0, falls=True),
    "goals": recorded(7, [30, 30, 30], "goals", goal=(4, 5, 6)),
    "plain": recorded(6, [25, 40], "plain"),
}


def spec_of(case):
    return Spec.of(DATA[case])


@pytest.mark.parametrize("case", DATA)
@pytest.mark.parametrize("name", LEARNERS)
def test_a_step_of_training_and_an_action(tmp_path, name, case):
    """Or one sentence, where the data have no rewards and the learner needs them."""
    data, spec = DATA[case], spec_of(case)
    if name == "gciql" and case != "goals":
        with pytest.raises(ValueError, match="GCIQL learns to reach goals: goal_columns must name at least one column"):
            RECIPES[name](spec, budget_of(spec))
        return
    chosen = RECIPES[name](spec, budget_of(spec))
    torch.manual_seed(0)
    learner = chosen.learner(chosen.model)
    if name in FROM_REWARDS and case != "falls":
        with pytest.raises(ValueError, match=f"learns from rewards, and those of {case} are all 0$"):
            learner.fit_statistics(data)
        return
    learner.fit_statistics(data)
    before = {key: value.clone() for key, value in learner.state_dict().items()}
    short = replace(chosen.train, steps=1, batch_size=4, warmup_steps=0)
    result = train(learner, chosen.batches(data), short, tmp_path, quiet=True)
    assert np.isfinite(result.metrics["loss"])
    assert any(not torch.equal(value, before[key]) for key, value in result.ema_state.items())
    agent = chosen.agent(learner.cpu().eval(), chosen.acting, {})
    if isinstance(agent, LearnedMPPIAgent):
        agent = agent.with_options(samples=8)
        if not spec.goal_columns:
            with pytest.raises(ValueError, match="needs a goal"):
                agent.act(data.observations[:2])
            agent.cost = lambda states, goals: states[..., 0].sum(axis=-1)
    agent.save(tmp_path / "weights.safetensors")
    again = chosen.agent.load(tmp_path / "weights.safetensors")
    assert again.learner.config == chosen.model
    agent.reset(goal=np.float32([0.2, 0.1, -0.3]) if spec.goal_columns and agent.goal_dim != 0 else None, seed=0)
    for now in range(3):
        action = agent.act(data.observations[[now, 60 + now]])
        assert action.shape == (2, 3)
        assert (action >= LOW - 1e-5).all() and (action <= HIGH + 1e-5).all()


def test_what_planners_are_asked_for_follows_from_the_data():
    asked = {case: RECIPES["decision-diffuser"](spec_of(case), budget_of(spec_of(case))).model.towards for case in DATA}
    assert asked == {"falls": "return", "goals": "goal", "plain": "nothing"}


def test_rewards_that_are_alike_say_something_where_the_task_ends():
    alive, free = DATA["falls"], replace(DATA["falls"], terminations=np.zeros(106, bool))
    chosen = RECIPES["iql"](spec_of("falls"), budget_of(spec_of("falls")))
    chosen.learner(chosen.model).fit_statistics(alive)
    with pytest.raises(ValueError, match="IQL learns from rewards, and those of falls are all 1"):
        chosen.learner(chosen.model).fit_statistics(free)


def test_sums_of_rewards_stop_where_the_task_or_the_episode_does():
    data = replace(DATA["falls"], rewards=np.arange(106, dtype=np.float32))
    sums = discounted_sums(data, 0.5, steps=4)
    expected = [sum(0.5**n * (start + n) for n in range(count)) for start, count in ((0, 4), (11, 2), (52, 1), (70, 4))]
    np.testing.assert_allclose(sums[[0, 11, 52, 70]], expected)


def test_sparse_plans_end_with_the_task_and_have_its_returns():
    """Episodes of 13, 40, 22 and 31 steps that all fall at their end, each step worth 1: windows of 4 states, 5 steps apart."""
    numbers = np.tile(np.arange(106, dtype=np.float32)[:, None], 5)
    ends = np.float32([[13], [53], [75], [106]]) + 1000
    data = replace(DATA["falls"], observations=numbers, last_observations=np.tile(ends, 5))
    paths = ReturnPaths(data, tokens=4, stride=5, discount=1.0)
    plans, returns, s, targets, _ = paths.sample(np.random.default_rng(0), 2000)
    start, stop = plans[:, 0, 0], np.array([13, 53, 75, 106])
    left = stop[np.searchsorted(stop, start, side="right")] - start
    for token in range(4):
        fallen = left <= 5 * token
        np.testing.assert_array_equal(plans[:, token, 0], np.where(fallen, start + left + 1000, start + 5 * token))
    np.testing.assert_allclose(returns, 2 * (np.minimum(left, 16) - 1) / 15 - 1, atol=1e-6)
    assert (targets - s == 5).all() and set(start) == set(range(106))
    with pytest.raises(ValueError, match="no episode is longer than the stride of 50 steps"):
        ReturnPaths(data, tokens=2, stride=50, discount=1.0)


def test_goals_in_hindsight_lie_ahead_in_the_same_episode():
    numbers = np.tile(np.arange(91, dtype=np.float32)[:, None], 7)
    data = replace(DATA["goals"], observations=numbers[:90], last_observations=numbers[[30, 60, 90]])
    *transitions, goals = Replay(data, (0, 1), longest=5)(np.random.default_rng(0), 500)
    now, goal = transitions[0][..., 0].numpy(), goals.numpy()
    assert goal.shape == (2, 500, 3) and (goal[..., 0] == goal[..., 1]).all()
    assert set((goal[..., 0] - now).ravel()) == {1.0, 2.0, 3.0, 4.0, 5.0}
    assert (goal[..., 0] <= now // 30 * 30 + 30).all() and (goal[..., 0] % 30 == 0).any()
    alone = Replay(data, (1,), longest=5)(np.random.default_rng(0), 500)
    assert torch.equal(alone[-1][0], goals[1]), "a seed's goals do not depend on the seeds beside it"


def test_a_goal_conditioned_clone_goes_where_it_is_sent(tmp_path):
    """The data step left or right at random; the action follows from the place where the goal lies."""
    rng = np.random.default_rng(0)
    actions = rng.choice([-1.0, 1.0], size=(400, 1)).astype(np.float32)
    place = np.concatenate([[[0.0]], np.cumsum(actions, axis=0)[:-1]]).astype(np.float32)
    data = Trajectories(
        place, actions, np.zeros(400, np.float32), np.array([0]), "walk", features=Features(goal_columns=(0,))
    )
    config = BCConfig(1, 1, seeds=(0,), hidden=(32,), goal_columns=(0,), longest=1)
    agent = BehaviorCloningAgent(BC(config))
    agent.learner.fit_statistics(data)
    batches, rng = Replay(data, config.seeds, config.longest), np.random.default_rng(0)
    agent._optimizer = torch.optim.Adam(agent.learner.parameters(), lr=1e-2)
    for _ in range(200):
        agent.update(tuple(part.numpy() for part in batches(rng, 64)))
    agent.save(tmp_path / "clone")
    agent = BehaviorCloningAgent.load(tmp_path / "clone")
    here = np.tile(np.median(place, axis=0), (2, 1))
    with pytest.raises(ValueError, match="BehaviorCloningAgent: this agent needs a goal"):
        agent.act(here)
    agent.reset(goal=here + np.array([[-1.0], [1.0]]))
    left, right = agent.act(here)[:, 0]
    assert left < -0.5 and right > 0.5


def test_training_shows_the_end_of_a_plan_as_planning_does():
    """With the end shown as its goal alone, what else is observed at the end makes no difference."""

    def loss(end, move):
        torch.manual_seed(0)
        layout = TokenLayout(7, 3, stride=2, observations="all", actions=True)
        model = DiffuserModel(DiffuserConfig(layout, tokens=8, goal_columns=(4, 5, 6), levels=8, end=end))
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.normal_(std=0.1)
        observations = torch.randn(4, 15, 7)
        observations[:, -1, :4] += move
        seen = []
        model.diffusion.loss = lambda tau, levels, generator: seen.append(tau) or tau.sum()
        model((observations, torch.zeros(4, 15, 3)), torch.Generator().manual_seed(0))
        return seen[0][:, -1]

    assert torch.equal(loss("goal", 0.0), loss("goal", 3.0))
    assert not torch.equal(loss("observation", 0.0), loss("observation", 3.0))


def test_a_budget_fits_the_longest_episode():
    for longest in (0, 3, 8, 50, 1000):
        budget = budget_of(Spec(3, 1, longest=longest))
        for stride, tokens in (budget.coarse, budget.sequence[:2], budget.sparse):
            assert tokens >= 3 and (longest < 8 or (tokens - 1) * stride < longest)
        assert budget.steps is STEPS
