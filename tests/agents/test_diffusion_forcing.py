"""The Diffusion Forcing agent: policy and planner, one observation or many, and its answers to mistakes."""

import dataclasses
import pickle

import gymnasium
import numpy as np
import pytest
import torch
from tiny import tiny

import dfplan.envs  # noqa: F401
from dfplan.agents.diffusion_forcing import AgentConfig, DiffusionForcingAgent
from dfplan.agents.loading import pretrained_names
from dfplan.data.tokens import TokenLayout
from dfplan.models import TransformerConfig
from dfplan.planning.ask import Ask
from dfplan.planning.model import TrajectoryModel, TrajectoryModelConfig
from dfplan.planning.plan_config import PlanConfig
from dfplan.planning.planner import Planner

START = np.array([3.0, 1.0, 0.0, 0.0])
GOAL = np.array([1.0, 1.0])


@pytest.fixture(scope="module")
def shipped():
    return DiffusionForcingAgent.from_pretrained("maze2d-umaze")


@pytest.fixture
def small():
    torch.manual_seed(0)
    agent = DiffusionForcingAgent(TrajectoryModel(tiny(4, 2, stride=2)), AgentConfig(lookahead=2, replan_every=3))
    return agent.with_options(horizons=4, steps=2)


def test_it_drives_to_the_goal_far_better_than_chance(shipped):
    env = gymnasium.make("maze2d-umaze-v1")
    returns = []
    for seed in range(3):
        observation, info = env.reset(seed=seed)
        shipped.reset(goal=info["goal"], seed=seed)
        total, truncated = 0.0, False
        while not truncated:
            observation, reward, _, truncated, _ = env.step(shipped.act(observation))
            total += reward
        returns.append(total)
    assert min(returns) > 120  # random actions get about 36 on average


def test_the_same_weights_are_a_policy_without_a_goal(shipped):
    shipped.reset(seed=0)
    action = shipped.act(START)
    assert action.shape == (2,) and np.isfinite(action).all()
    assert shipped.last_plan.lengths.tolist() == [1]


def test_a_plan_begins_at_the_start_and_ends_at_the_goal(shipped):
    shipped.reset(seed=0)
    plan = shipped.plan(START, goal=GOAL)
    path, end = plan.observations[0, :, 0], int(plan.lengths[0])
    assert np.allclose(path[0], START, atol=1e-5)
    assert np.allclose(path[end, :2], GOAL, atol=1e-5)
    assert np.allclose(path[end:, :2], GOAL, atol=1e-5)
    assert plan.history[0][1].max() == 256 and int(plan.history[-1][1][0, : end + 1].max()) == 0


def test_a_horizon_is_kept(shipped):
    assert shipped.plan(START, goal=GOAL, horizon=100).lengths.tolist() == [13]
    with pytest.raises(ValueError, match="the horizon must be a whole number from 1 to 184"):
        shipped.plan(START, goal=GOAL, horizon=10_000)


def test_a_guide_bends_the_plan(shipped):
    def low(observations):
        return observations[..., 1].mean(-1)

    plain, bent = [], []
    for seed in range(4):
        for guide, found in ((None, plain), (lambda o: 3 * low(o), bent)):
            shipped.reset(seed=seed)
            found.append(float(low(shipped.plan(START, goal=GOAL, horizon=150, guide=guide).observations[:, :, 0])))
    assert np.mean(bent) < np.mean(plain)


def path_length(observations):
    return (observations[:, 1:, :2] - observations[:, :-1, :2]).square().sum(-1).sqrt().sum(-1)


def test_candidates_that_are_not_finite_are_left_out(shipped):
    """The length of a path has no gradient where it rests, as all candidates but the longest do."""
    shipped.reset(seed=0)
    with pytest.warns(UserWarning, match="not finite and are left out"):
        plan = shipped.with_options(goal="guided", scale=1.0, horizons=3).plan(START, goal=GOAL, guide=path_length)
    assert bool(plan.observations.isfinite().all()) and plan.lengths.tolist() == [23]


@pytest.mark.filterwarnings("ignore:some candidate")
def test_too_large_a_scale_is_an_error_and_never_nan(shipped):
    agent = shipped.with_options(goal="guided", guide="throughout", scale=1e20, horizons=2)
    agent.reset(goal=GOAL, seed=0)
    with pytest.raises(ValueError, match="none of the 2 candidate plans is finite"):
        agent.act(START)


def test_decided_actions_are_played_whatever_is_planned():
    torch.manual_seed(0)
    layout, network = TokenLayout(2, 1, stride=2, actions=True), TransformerConfig(width=16, depth=1, heads=2)
    learned = {"parts": True, "in_flight": 1, "inverse": False, "plausibility": None}
    config = TrajectoryModelConfig(layout, tokens=4, levels=8, model=network, **learned)
    how = AgentConfig(PlanConfig(steps=2, policy_tokens=3), "diffused_actions", replan_every=4, keep=1)
    agent = DiffusionForcingAgent(TrajectoryModel(config), how)
    agent.reset(seed=0)
    for _ in range(4):
        agent.act(np.zeros(2))
    decided = agent.last_plan.actions[0, 4:6].clamp(-1, 1).numpy()
    played = [agent.act(np.ones(2)) for _ in range(2)]
    assert np.array_equal(np.stack(played), decided)


def test_same_seed_same_actions(shipped):
    def actions(seed):
        shipped.reset(goal=GOAL, seed=seed)
        return np.stack([shipped.act(START) for _ in range(5)])

    assert (actions(1) == actions(1)).all()
    assert (actions(1) != actions(2)).any()


def test_plans_are_remade_when_due_and_rows_can_begin_anew(small):
    made = []
    plan = small._make_plan
    small._make_plan = lambda batch, *rest, **options: made.append(len(batch)) or plan(batch, *rest, **options)
    small.reset(goal=np.stack([GOAL, GOAL]), seed=0)
    batch = np.stack([START, START])
    for _ in range(4):
        small.act(batch)
    assert made == [2, 2]
    small.forget([1], GOAL[None])
    small.act(batch)
    assert made == [2, 2, 1]


def test_by_default_it_knows_no_task():
    assert (AgentConfig().speed, AgentConfig().arrival) == (1.0, 0.0)


def planned_for(agent):
    """Of each further plan, the lengths that were tried for each row, None for the planner's own, in tokens."""
    tried, draw = [], agent._draw

    def counted(observation, ask, horizons=None, **how):
        tried.append(None if horizons is None else horizons.tolist())
        return draw(observation, ask, horizons=horizons, **how)

    agent._draw = counted
    return tried


def test_within_its_arrival_of_the_goal_it_stays_without_planning(small):
    agent = small.with_options(arrival=0.3)
    tried = planned_for(agent)
    near, far = np.array([1.1, 1.2, 0.0, 0.0]), np.array([1.1, 1.4, 0.0, 0.0])
    agent.reset(goal=GOAL, seed=0)
    agent.act(near)
    assert len(tried) == 1, "an episode begins with a plan, wherever it begins"
    for observation, plans in ((near, 1), (far, 2), (near, 2), (near, 2)):
        for _ in range(3):
            agent.act(observation)
        assert len(tried) == plans
    following = agent._following
    state = agent.model.state_at(torch.tensor(GOAL[None], dtype=torch.float32), (0, 1))
    assert torch.equal(following.path[0], state.expand_as(following.path[0]))
    assert following.lengths.tolist() == [1] and following.possible.tolist() == [True]


def test_each_row_stays_by_itself(small):
    agent = small.with_options(arrival=0.3)
    agent.reset(goal=GOAL, seed=0)
    tried = planned_for(agent)
    batch = np.stack([START, [1.1, 1.0, 0.0, 0.0], START])
    for _ in range(4):
        agent.act(batch)
    assert [len(rows or [0] * 3) for rows in tried] == [3, 2] and agent._following.clock.tolist() == [1, 1, 1]


def test_replans_try_lengths_up_to_a_little_beyond_what_is_left(small):
    agent = small.with_options(horizons=2, window=1, replan_every=2)
    agent.model.plausibility.forward = lambda before, after: torch.zeros(before.shape[:-1])
    tried = planned_for(agent)
    agent.reset(goal=GOAL, seed=0)
    agent.act(START)
    agent._following.lengths[:] = 3  # tokens of two steps: after two steps, two tokens are left
    for _ in range(2):
        agent.act(START)
    assert tried == [[[1, 4]], [[1, 3]]]
    agent._following.lengths[:] = 3
    agent._following.possible[:] = False
    for _ in range(2):
        agent.act(START)
    assert tried[-1] == [[1, 4]], "a plan that was not possible says nothing of the length"
    agent.forget([0])
    agent.act(START)
    assert tried[-1] == [[1, 4]]
    fast = agent.with_options(speed=2.0)
    tried = planned_for(fast)
    fast.reset(goal=GOAL, seed=0)
    fast.act(START)
    fast._following.lengths[:] = 3
    for _ in range(2):
        fast.act(START)
    assert tried[-1] == [[1, 2]], "two steps at double speed are two tokens"


def test_a_policy_decides_again_at_its_tokens_end_and_costs_alone_ask_for_the_longest_plan(small):
    tried = planned_for(small)
    small.reset(seed=0)
    for _ in range(4):
        small.act(START)
    assert len(tried) == 2 and small.last_plan.lengths.tolist() == [1]
    small.reset(ask=Ask(costs=lambda o: o[..., 1].mean(-1)))
    for _ in range(4):
        small.act(START)
    assert len(tried) == 4 and small.last_plan.lengths.tolist() == [4]


def test_without_plausibility_the_longest_plan_is_made(small, tmp_path):
    config = dataclasses.replace(small.model.config, plausibility=None)
    agent = DiffusionForcingAgent(TrajectoryModel(config), AgentConfig(lookahead=2, replan_every=3))
    assert not any("plausib" in name for name in agent.model.state_dict())
    rng = np.random.default_rng(0)
    assert set(agent.update((rng.normal(size=(4, 9, 4)), rng.normal(size=(4, 9, 2))))) == {
        "loss",
        "diffusion",
        "inverse",
    }
    agent.save(tmp_path / "a.safetensors")
    again = DiffusionForcingAgent.load(tmp_path / "a.safetensors")
    for one in (agent, again):
        one.reset(goal=GOAL, seed=0)
        for _ in range(4):
            one.act(START)
        assert one.last_plan.lengths.tolist() == [4] and not one.last_plan.scores


# Plans that stay alive


def test_a_living_plan_drives_to_the_goal_and_is_hardly_ever_made_anew(shipped):
    env, agent = gymnasium.make("maze2d-umaze-v1"), shipped.with_options(streaming=True)
    observation, info = env.reset(seed=1)
    agent.reset(goal=info["goal"], seed=1)
    total, made = 0.0, []
    for _ in range(300):
        observation, reward, *_ = env.step(agent.act(observation))
        total += reward
        made += [] if made and made[-1] is agent.last_plan else [agent.last_plan]
    assert total > 120 and len(made) < 10


def streaming(small):
    agent = small.with_options(streaming=True, ends_below=1e9)
    agent.reset(goal=np.stack([GOAL, GOAL]), seed=0)
    batch = np.stack([START, START])
    agent.act(batch)
    first = agent.last_plan
    agent.act(batch)
    assert agent.last_plan is first, "it lives"
    return agent, batch, first


def test_a_living_plan_ends_with_its_goal_its_episode_and_when_it_is_lost(small):
    agent, batch, _ = streaming(small)
    agent.forget([1], goal=np.array([2.0, 2.0]))
    agent.act(batch)
    assert len(agent.last_plan) == 1
    torch.testing.assert_close(
        agent.last_plan.observations[0, agent.last_plan.lengths[0], 0, :2], torch.tensor([2.0, 2.0])
    )
    second = agent.last_plan
    agent.act(batch)
    assert agent.last_plan is second, "both live"
    agent.config = dataclasses.replace(agent.config, ends_below=0.0)
    agent.config = dataclasses.replace(agent.config, plan=dataclasses.replace(agent.config.plan, margin=1e9))
    for _ in range(2):  # a plan lives for a token at least
        agent.act(batch)
    assert len(agent.last_plan) == 2, "both are lost"


def test_a_living_plan_goes_on_after_it_was_pickled(small):
    agent, batch, _ = streaming(small)
    other = pickle.loads(pickle.dumps(agent))
    for _ in range(3):
        np.testing.assert_array_equal(agent.act(batch), other.act(batch))


def test_a_push_out_of_the_spread_makes_a_new_plan(shipped):
    agent = shipped.with_options(spread=4, doubt=2.0, horizons=4)
    agent.reset(goal=GOAL, seed=0)
    agent.act(START)
    first = agent.last_plan
    agent.act(first.observations[0, 1, 0].numpy())
    assert agent.last_plan is first, "on its plan"
    pushed = first.observations[0, 1, 0].numpy() + np.array([0.0, -3.0, 0.0, 0.0], np.float32)
    agent.act(pushed)
    assert agent.last_plan is not first
    torch.testing.assert_close(agent.last_plan.observations[0, 0, 0], torch.from_numpy(pushed), atol=1e-4, rtol=0)
    with pytest.raises(ValueError, match="doubt needs plans with a spread"):
        shipped.with_options(doubt=2.0)


def test_streaming_needs_what_judges_and_tracks_plans():
    with pytest.raises(ValueError, match="streaming needs a model that has learned plausibility"):
        blind = TrajectoryModel(dataclasses.replace(tiny(4, 2, stride=2), plausibility=None))
        DiffusionForcingAgent(blind, AgentConfig(lookahead=2, streaming=True))


# What is asked for


def executed(agent, env, ask, steps=70):
    """Places (steps, 2) of an episode in which the agent is asked for something."""
    observation, _ = env.reset(seed=3)
    agent.reset(ask=ask, seed=0)
    places = []
    for _ in range(steps):
        observation, *_ = env.step(agent.act(observation))
        places.append(observation[:2].copy())
    return np.stack(places)


def test_a_cost_that_reset_is_given_bends_the_executed_path(shipped):
    env = gymnasium.make("maze2d-umaze-v1")
    goal = env.reset(seed=3)[1]["goal"]
    plain = executed(shipped, env, Ask(goal))
    bent = executed(shipped, env, Ask(goal, costs=lambda o: 100 * o[..., 1].mean(-1)))
    assert bent[:, 1].mean() < plain[:, 1].mean() - 0.02


def test_constraints_keep_a_plan_out_of_a_region(shipped):
    agent = shipped.with_options(samples=3)
    agent.reset(seed=0)
    free = agent.plan(START, goal=GOAL, record=False)
    edge = float(free.observations[..., 1].max()) - 0.05

    def beyond(observations):
        """How far a plan comes into what is right of the edge, which the free one enters at its turn."""
        return 300 * (observations[..., 1] - edge).clamp(min=0).mean(-1)

    agent.reset(seed=0)
    kept = agent.plan(START, ask=Ask(GOAL, constraints=beyond), record=False)
    assert float(beyond(kept.observations[:, :, 0])) == float(kept.scores["violation"]) == 0
    assert float(kept.scores["plausibility"]) > -20 and kept.lengths > 15, "still around the wall, not through it"


def test_what_was_asked_for_stays_until_the_next_reset(small):
    seen = []

    def cost(observations):
        seen.append(len(observations))
        return observations[..., 1].mean(-1)

    small.reset(ask=Ask(np.stack([GOAL, GOAL]), costs=cost), seed=0)
    for _ in range(4):
        small.act(np.stack([START, START]))
    assert set(seen) == {2}
    seen.clear()
    small.forget([1])
    small.act(np.stack([START, START]))
    assert set(seen) == {1}, "the rows that are planned"
    seen.clear()
    small.plan(START, goal=GOAL)
    assert set(seen) == {1}, "a plan without an ask of its own is asked for the same"
    small.reset(goal=GOAL)
    seen.clear()
    small.act(START)
    small.plan(START, ask=Ask(GOAL))
    assert not seen


def test_a_wrong_ask_is_one_sentence(small):
    for call, sentence in (
        (
            lambda: small.reset(ask=Ask(return_=3.0)),
            "cannot be asked for return_: expected only constraints, costs, goal",
        ),
        (lambda: small.reset(GOAL, ask=Ask(GOAL)), "there are two goals"),
        (lambda: small.reset(ask=GOAL), "ask must be an Ask, got ndarray"),
        (lambda: small.reset(ask=Ask([1.0])), r"the goal must be \(2,\)"),
        (lambda: small.plan(START, ask=Ask(GOAL, costs=lambda o: 3.0)), "returned float"),
        (lambda: small.plan(START, ask=Ask(GOAL, constraints=lambda o: 3.0)), "raised AttributeError"),
    ):
        with pytest.raises(ValueError, match=sentence) as caught:
            call()
        assert str(caught.value).startswith("DiffusionForcingAgent: ") and "\n" not in str(caught.value)


def one_at_a_time(small, **fields):
    """An untrained agent of random weights that is asked for one of two columns at a time."""
    made = dataclasses.replace(
        small.model.config,
        layout=dataclasses.replace(small.model.config.layout, actions=True),
        parts=True,
        condition=("goal",),
        goal_within=1,
        goal_groups=(1, 1),
        inverse=False,
        plausibility=None,
        **fields,
    )
    model = TrajectoryModel(made)
    torch.nn.init.normal_(model.diffusion.model.network.out.weight)
    acting = AgentConfig(execution="diffused_actions", replan_every=made.layout.stride, in_turn=(0.5, 0.5))
    return DiffusionForcingAgent(model, acting)


def test_things_are_asked_for_in_turn(small):
    """What is not asked for yet makes no difference, until its turn comes."""
    agent = one_at_a_time(small)

    def end(goal):
        agent.reset(goal=goal, seed=0)
        return agent.plan(START).observations[0, -1, -1].tolist()

    assert end((9.0, 0.0)) == end((9.0, 5.0)) != end((3.0, 5.0)) != end((3.0, 7.0))
    with pytest.raises(ValueError, match=r"in_turn needs a distance for each of the model's goal_groups, \(1, 1\)"):
        agent.with_options(in_turn=(0.5,))


def test_a_new_plan_begins_with_the_actions_that_are_decided_already(small):
    made = one_at_a_time(small, in_flight=1)
    stride = made.model.config.layout.stride

    def two_plans(keep):
        agent = made.with_options(keep=keep)
        agent.reset(goal=(9.0, 9.0), seed=0)
        for _ in range(stride + 1):
            agent.act(START)
            yield agent.last_plan.actions[0]

    first, *_, second = two_plans(keep=1)
    assert torch.allclose(second[:stride], first[stride : 2 * stride], atol=1e-2)
    first, *_, second = two_plans(keep=0)
    assert not torch.allclose(second[:stride], first[stride : 2 * stride], atol=1e-2)


def test_a_goal_that_takes_several_changes_is_asked_for_by_the_next_one(small):
    """From (0, 0) to (9, 9) the second column comes first, as if it were the whole goal."""
    agent = one_at_a_time(small, kinds=(2, 2))
    order = agent.model.order
    order.centers = torch.tensor([[0.0, 0], [0, 9], [9, 0], [9, 9]])
    order.rests, order.arrivals = order.centers.expand(2, 4, 2), order.centers.expand(3, 4, 2)
    order.follows[0], order.follows[1, 3] = torch.tensor([-1, 1, 2, 1]), 3

    def end(goal):
        agent.reset(goal=goal, seed=0)
        return agent.plan([0, 0, 3, 4]).observations[0, -1, -1].tolist()

    assert end((9.0, 9.0)) == end((0.0, 9.0)) != end((9.0, 0.0))
    with pytest.raises(ValueError, match="asked for one at a time"):
        agent.with_options(in_turn=())


def test_of_things_that_are_alike_the_one_that_is_asked_for_takes_the_place_of_the_first(small):
    """Two things in one column each: with both their columns and goals exchanged, plans are the same but for the order."""
    agent = one_at_a_time(small, goal_columns=(0, 1), alike=((0,), (1,)))

    def plan(start, goal):
        agent.reset(goal=goal, seed=0)
        return agent.plan(start)

    one, other = plan([1, 2, 3, 4], (9.0, 2.0)), plan([2, 1, 3, 4], (2.0, 9.0))
    assert torch.equal(one.observations, other.observations[..., [1, 0, 2, 3]])
    assert torch.equal(one.actions, other.actions) and other.observations[0, 0, 0].tolist() == [2, 1, 3, 4]
    assert torch.equal(one.history[1][0], other.history[1][0][..., [1, 0, 2, 3]])
    with pytest.raises(ValueError, match="goals without costs"):
        agent.plan([1, 2, 3, 4], guide=lambda observations: observations.sum((1, 2)))
    assert (one.observations[..., 1] == 2).all(), "what is not asked for stays"
    assert not one.levels.any() and plan([1, 7, 3, 4], (9.0, 7.0)).actions.equal(one.actions), "it is not seen"
    with pytest.raises(ValueError, match="asked for one at a time"):
        agent.with_options(in_turn=())
    with pytest.raises(ValueError, match="clearance needs in_turn, and goal_groups of as many columns"):
        small.with_options(clearance=0.1)


def test_candidates_are_tried_as_the_agent_follows_them(small):
    with pytest.raises(ValueError, match="trials need a model that has learned outcomes"):
        small.with_options(trials=2)
    model = TrajectoryModel(dataclasses.replace(small.model.config, outcomes=2))
    tried, actions = DiffusionForcingAgent(model, small.config).with_options(trials=2, margin=-99.0, lost=7.0), []
    for _ in range(2):
        tried.reset(GOAL, seed=1)
        actions.append(tried.act(START))
        assert 0 < tried.last_plan.scores["time"] <= 7
    assert (actions[0] == actions[1]).all()
    untried = tried.with_options(trials=0)
    untried.reset(GOAL, seed=1)
    untried.act(START)
    assert "time" not in untried.last_plan.scores


def test_a_planner_of_a_users_own_is_kept_through_options(small):
    def longest(scores, lengths, config):
        return lengths.argmax(1)

    agent = DiffusionForcingAgent(small.model, small.config, planner=Planner(choose=longest))
    assert agent.plan(START, goal=GOAL).lengths.tolist() == [4]
    assert agent.with_options(horizons=3).plan(START, goal=GOAL).lengths.tolist() == [4]


def test_update_lowers_the_loss(small):
    rng = np.random.default_rng(0)
    batch = (rng.normal(size=(16, 9, 4)), rng.uniform(-1, 1, size=(16, 9, 2)))
    losses = [small.update(batch)["loss"] for _ in range(60)]
    assert np.mean(losses[-10:]) < np.mean(losses[:10])


def test_save_and_load_keep_weights_and_config(small, tmp_path):
    small.card["command"] = "a test"
    small.save(tmp_path / "a.safetensors")
    other = DiffusionForcingAgent.load(tmp_path / "a.safetensors")
    assert other.config == small.config and other.card["command"] == "a test"
    for agent in (small, other):
        agent.reset(goal=GOAL, seed=3)
    assert (small.act(START) == other.act(START)).all()


def test_mistakes_get_a_sentence(small):
    with pytest.raises(ValueError, match=r"did you mean .*maze2d-large"):
        DiffusionForcingAgent.from_pretrained("maze2d-huge")
    with pytest.raises(ValueError, match="hold no actions"):
        small.with_options(execution="diffused_actions")
    assert {"maze2d-large", "maze2d-medium", "maze2d-umaze"} <= set(pretrained_names())
