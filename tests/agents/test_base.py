"""What all agents have in common: what they take, what they refuse, and that neither copies nor torch's modes change them."""

import copy
import dataclasses
import functools
import multiprocessing
import pickle
import re

import numpy as np
import pytest
import torch
from every_agent import EVERY, GOAL, OBSERVATION, batch_for, goal_of, point

from dfplan.agents.base import Agent
from dfplan.agents.loading import AGENTS, from_pretrained
from dfplan.agents.mppi import GoalCost, MPPIAgent, MPPIConfig
from dfplan.agents.online.stable_baselines import StableBaselinesAgent
from dfplan.arrays import read

every_agent = pytest.mark.parametrize("kind", EVERY)
LEARNING = [kind for kind in EVERY if kind != "mppi" and not kind.startswith("stable_baselines3")]
BATCH = np.stack([OBSERVATION, OBSERVATION + 0.01])


@functools.cache
def pickled(kind):
    return pickle.dumps(EVERY[kind]())


@pytest.fixture
def agent(kind):
    """One for each test: to copy an agent is faster than to make it."""
    return pickle.loads(pickled(kind))


def drive(agent, steps):
    return [agent.act(BATCH + 0.001 * step) for step in range(steps)]


def on_course(agent, steps):
    """The agent in the middle of an episode, one row of it begun anew."""
    agent.reset(np.stack([goal_of(agent)] * 2), seed=3)
    drive(agent, steps)
    agent.forget([1])
    return agent


def refused(agent, call, *expected):
    """`call` raises one sentence that names the agent and all that is ``expected``."""
    with pytest.raises(ValueError) as caught:
        call()
    sentence = str(caught.value)
    assert sentence.startswith(f"{type(agent).__name__}: ") and "\n" not in sentence and len(sentence) < 300
    for part in expected:
        assert part in sentence
    return sentence


def test_every_kind_of_file_is_tried():
    assert {kind.split(",")[0] for kind in EVERY} == {*AGENTS, "mppi"}


# Goals


@every_agent
def test_goals_are_one_or_one_for_each_observation(agent):
    goal = goal_of(agent)
    agent.reset(np.stack([goal] * 3), seed=0)
    refused(agent, lambda: agent.act(BATCH), "3 goals for 2 observations")
    refused(agent, lambda: agent.act(OBSERVATION), "3 goals for 1 observations")
    assert agent.act(np.stack([OBSERVATION] * 3)).shape == (3, 2)
    found = []
    for goals in (goal, goal[None], np.stack([goal] * 2)):
        agent.reset(goals, seed=0)
        found.append(agent.act(BATCH))
    assert np.array_equal(found[0], found[1]) and np.array_equal(found[0], found[2]), "one goal is that of all rows"


@every_agent
def test_a_goal_of_another_form_is_refused_and_nothing_changes(agent):
    agent.reset(goal_of(agent), seed=0)
    first = agent.act(OBSERVATION)
    agent.reset(goal_of(agent), seed=0)
    wrong = ([], [[]], np.zeros((0, 2)), [1j, 0.0], ["a", "b"], [None, 0], {"goal": 1}, [[0, 1], [2]], 3.0, "here")
    for goal in (*wrong, [np.nan, 0.0], [np.inf, 0.0], [1e300, 0.0], [10**400, 0], [True, False]):
        refused(agent, lambda goal=goal: agent.reset(goal), "the goal must be", "finite real numbers")
    assert np.array_equal(agent.act(OBSERVATION), first)


@pytest.mark.parametrize("kind", ["trajectory_model", "diffuser", "decision_diffuser"])
def test_goals_of_a_plan_are_held_to_the_same_rule(agent):
    agent.reset(seed=0)
    for goal in ([1.0], 1.0, np.zeros((1, 1)), [1.0, 2.0, 3.0]):
        refused(
            agent, lambda goal=goal: agent.plan(BATCH, goal=goal), "the goal must be (2,) or (batch, 2)", "got shape"
        )
    refused(agent, lambda: agent.plan(BATCH, goal=np.zeros((3, 2))), "3 goals for 2 observations")
    refused(agent, lambda: agent.plan(np.zeros(3), goal=GOAL), "the observation must be (4,) or (batch, 4)")
    assert len(agent.plan(BATCH, goal=GOAL[None]).observations) == 2


@every_agent
def test_rows_that_begin_anew_are_in_the_batch_and_have_one_goal_each(agent):
    goal = goal_of(agent)
    refused(agent, lambda: agent.forget([0], goal), "a goal for each row")
    agent.reset(np.stack([goal] * 2), seed=0)
    for goals in (np.stack([goal] * 2), np.stack([goal] * 3)):
        refused(agent, lambda goals=goals: agent.forget([1], goals), f"{len(goals)} goals for 1 rows")
    refused(agent, lambda: agent.forget([0], [np.nan, 0.0]), "the goal must be", "NaN or infinity")
    agent.act(BATCH)
    for rows in ([2], [-1], [0, 2]):
        refused(agent, lambda rows=rows: agent.forget(rows), "must be from 0 to 1", str(rows))
    for rows in ([0.5], np.array([True, False, True]), ["a"], None, [[0], [0, 1]]):
        refused(agent, lambda rows=rows: agent.forget(rows), "must be whole numbers")
    agent.forget([])
    agent.forget(1, goal)
    agent.forget([0, 1], goal[None])
    agent.forget(np.array([False, True]), goal[None])
    assert agent.act(BATCH).shape == (2, 2)


def test_one_goal_for_all_becomes_one_for_each_row_that_begins_anew():
    agent = MPPIAgent(point, GoalCost(), MPPIConfig(2, samples=64, controls=5, hold=1))
    agent.reset((1.0, 0.0), seed=0)
    state = np.zeros((2, 4))
    for _ in range(60):
        state = point(state, agent.act(state)[:, None].astype(float))[:, 0]
        if state[0, 0] > 0.5:
            break
    agent.forget([1], (-1.0, 0.0))
    for _ in range(60):
        state = point(state, agent.act(state)[:, None].astype(float))[:, 0]
    assert np.allclose(state[:, :2], [[1.0, 0.0], [-1.0, 0.0]], atol=0.3)


# Observations and seeds


@every_agent
def test_what_is_no_observation_is_one_sentence(agent):
    agent.reset(goal_of(agent), seed=0)
    first = agent.act(OBSERVATION)
    agent.reset(goal_of(agent), seed=0)
    wrong = {
        "got shape (0, 4)": np.zeros((0, 4)),
        "got shape (1, 1, 4)": np.zeros((1, 1, 4)),
        "got shape ()": 1.0,
        "got complex numbers": np.zeros(4, dtype=complex),
        "got text": np.array(["a"] * 4),
        "got objects": np.zeros(4, dtype=object),
        "got bool values": np.zeros(4, dtype=bool),
        "got None": None,
        "got parts that make no array": [[0.0] * 4, [0.0] * 3],
        "got a dictionary of ['observation']": {"observation": OBSERVATION},
        "got NaN or infinity": np.array([0, 0, np.nan, 0]),
        "got a number beyond the range of float32": np.array([0, 0, 1e300, 0]),
        "got masked entries": np.ma.masked_array(np.zeros(4), [True, False, False, False]),
    }
    for found, observation in wrong.items():
        refused(agent, lambda observation=observation: agent.act(observation), "the observation must be (", found)
    if agent.observation_dim:
        refused(agent, lambda: agent.act(np.zeros((2, 3))), "must be (4,) or (batch, 4)", "got shape (2, 3)")
    for same in (
        OBSERVATION.tolist(),
        torch.tensor(OBSERVATION, requires_grad=True),
        tuple(map(np.float64, OBSERVATION)),
    ):
        agent.reset(goal_of(agent), seed=0)
        assert np.array_equal(agent.act(same), first)


def test_a_tensor_in_bfloat16_and_whole_numbers_are_read():
    assert read(torch.ones(4, dtype=torch.bfloat16), "it", (4,)).tolist() == [1.0] * 4
    assert read(np.arange(4, dtype=np.uint8), "it", (4,)).dtype == np.float32


def test_what_is_read_is_not_the_callers_array():
    given = np.zeros(4, dtype=np.float32)
    read(given, "it", (4,))[:] = 1
    assert not given.any()


@every_agent
def test_seeds_are_whole_numbers(agent):
    for seed in (1.5, -1, "1", True, 2**64):
        refused(
            agent, lambda seed=seed: agent.reset(seed=seed), "the seed must be a whole number from 0 to", repr(seed)
        )
    agent.reset(goal_of(agent), seed=np.int64(3))


# Copies and processes


@every_agent
@pytest.mark.parametrize(
    "again", [copy.deepcopy, lambda agent: pickle.loads(pickle.dumps(agent))], ids=["copy", "pickle"]
)
def test_a_copy_in_the_middle_of_an_episode_goes_on_as_the_agent_would(agent, again):
    other = again(on_course(agent, steps=4))
    assert np.array_equal(drive(agent, 7), drive(other, 7))
    assert other.config == agent.config and other.card == agent.card and other.parameters == agent.parameters


@pytest.mark.parametrize("kind", LEARNING)
def test_a_copy_learns_on_as_the_agent_would_and_apart_from_it(agent):
    batch = batch_for(agent)
    agent.update(batch)
    other = pickle.loads(pickle.dumps(agent))
    before = {name: tensor.clone() for name, tensor in agent.learner.state_dict().items()}
    losses = other.update(batch)
    assert all(torch.equal(tensor, before[name]) for name, tensor in agent.learner.state_dict().items())
    assert losses == agent.update(batch)
    for name, tensor in agent.learner.state_dict().items():
        assert torch.equal(tensor, other.learner.state_dict()[name]), name


def answer(agent, pipe):
    pipe.send(drive(agent, 7))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["trajectory_model", "bc", "stable_baselines3, PPO"])
def test_a_spawned_process_goes_on_as_the_agent_would(agent):
    spawn = multiprocessing.get_context("spawn")
    here, there = spawn.Pipe()
    process = spawn.Process(target=answer, args=(on_course(agent, steps=4), there))
    process.start()
    assert here.poll(120), "the process gave no answer"
    actions = here.recv()
    process.join()
    assert process.exitcode == 0 and np.array_equal(actions, drive(agent, 7))


# Torch's modes


def default_dtype():
    class Mode:
        def __enter__(self):
            torch.set_default_dtype(torch.float64)

        def __exit__(self, *_):
            torch.set_default_dtype(torch.float32)

    return Mode()


MODES = {
    "inference": torch.inference_mode,
    "no_grad": torch.no_grad,
    "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
    "float64": default_dtype,
    "device": lambda: torch.device("meta"),
}


@functools.cache
def plain_actions(kind):
    agent = on_course(pickle.loads(pickled(kind)), steps=2)
    return [*drive(agent, 5), *drive(agent, 2)]


@every_agent
@pytest.mark.parametrize("mode", MODES)
def test_a_callers_modes_do_not_change_actions(kind, agent, mode):
    plain = plain_actions(kind)
    with MODES[mode]():
        inside = drive(on_course(agent, steps=2), 5)
    assert np.array_equal(plain, [*inside, *drive(agent, 2)]), "the episode goes on outside"
    on_course(agent, steps=2)
    outside = drive(agent, 2)
    with MODES[mode]():
        assert np.array_equal(plain[:5], [*outside, *(agent.act(BATCH + 0.001 * step) for step in (2, 3, 4))])
    assert all(action.dtype == np.float32 for action in inside)


@pytest.mark.parametrize("kind", LEARNING)
@pytest.mark.parametrize("mode", MODES)
def test_a_callers_modes_do_not_change_learning(agent, mode):
    batch, other = batch_for(agent), copy.deepcopy(agent)
    losses = [agent.update(batch) for _ in range(2)]
    with MODES[mode]():
        first = other.update(batch)
    assert losses == [first, other.update(batch)]


@pytest.mark.parametrize("kind", ["trajectory_model", "diffuser, to a return", "decision_diffuser"])
@pytest.mark.parametrize("mode", MODES)
def test_a_callers_modes_do_not_change_plans(agent, mode):
    def plan():
        agent.reset(goal_of(agent), seed=0)
        return agent.plan(BATCH).observations

    plain = plan()
    with MODES[mode]():
        inside = plan()
    assert torch.equal(plain, inside) and not inside.is_inference()


@pytest.mark.parametrize("name", ["maze2d-umaze", "maze2d-umaze-dv", "maze2d-umaze-iql", "maze2d-umaze-dynamics"])
def test_weights_are_loaded_in_any_mode(name):
    plain = drive(on_course(from_pretrained(name), steps=1), 1)
    for mode, enter in MODES.items():
        with enter():
            agent = from_pretrained(name)
        assert np.array_equal(drive(on_course(agent, steps=1), 1), plain), mode


# Results


@every_agent
def test_what_is_not_finite_never_leaves_an_agent_in_silence(agent):
    if type(agent) is MPPIAgent:
        agent.cost = lambda states, goals: np.full(states.shape[:2], np.nan)
    else:
        weights = agent.policy if hasattr(agent, "policy") else agent.learner
        with torch.no_grad():
            for parameter in weights.parameters():
                parameter.fill_(torch.nan)
    agent.reset(goal_of(agent), seed=0)
    assert re.search("nan|finite", refused(agent, lambda: agent.act(OBSERVATION)).lower())


@every_agent
@pytest.mark.parametrize("far", [1e6, 1e15, 3e38])
def test_what_is_far_out_gives_finite_actions_or_a_sentence(agent, far):
    for goal, observation in (([far, far], OBSERVATION), (goal_of(agent), OBSERVATION * far)):
        try:
            agent.reset(goal, seed=0)
            action = agent.act(observation)
        except ValueError as error:
            assert str(error).startswith(f"{type(agent).__name__}: ")
        else:
            assert np.isfinite(action).all()


@pytest.mark.parametrize("kind", LEARNING)
def test_an_update_that_is_not_finite_leaves_the_weights(agent, monkeypatch):
    batch = batch_for(agent)
    agent.update(batch)
    before = {name: parameter.detach().clone() for name, parameter in agent.learner.named_parameters()}
    losses = agent.learner.forward

    def beyond(*arguments):
        return {name: loss * torch.inf for name, loss in losses(*arguments).items()}

    monkeypatch.setattr(agent.learner, "forward", beyond)
    refused(agent, lambda: agent.update(batch), "NaN or infinity in it")
    assert not agent.learner.training
    assert all(torch.equal(parameter, before[name]) for name, parameter in agent.learner.named_parameters())


# Training batches


@pytest.mark.parametrize("kind", LEARNING)
def test_a_batch_is_whole_aligned_and_finite(agent):
    batch = batch_for(agent)
    before = {name: tensor.clone() for name, tensor in agent.learner.state_dict().items()}
    for found in ((), batch[:1], (*batch, batch[0]), None, 3, {"observations": batch[0]}):
        refused(agent, lambda found=found: agent.update(found), "a batch must be (")
    for place, part in enumerate(batch):
        rows = part[:, :-1] if part.ndim > 1 else part[:-1]
        wrong = [rows, part[..., None], part[:0], part.astype(complex), part.astype(str), part * np.nan, None]
        wrong += [part[..., :-1]] if part.ndim > 1 else []
        for other in wrong:
            given = (*batch[:place], other, *batch[place + 1 :])
            refused(
                agent,
                lambda given=given: agent.update(given),
                "the batch's ",
                " must be (",
                "finite real numbers, got ",
            )
    assert all(torch.equal(tensor, before[name]) for name, tensor in agent.learner.state_dict().items())


def test_recorded_steps_are_counted_within_the_window():
    agent = EVERY["decision_diffuser"]()
    *batch, recorded = batch_for(agent)
    for wrong in (0 * recorded, recorded + 1, recorded - 0.5):
        refused(
            agent,
            lambda wrong=wrong: agent.update((*batch, wrong)),
            "recorded steps must be whole numbers from 1 to 15",
        )


def test_windows_are_of_the_models_own_length():
    agent = EVERY["trajectory_model"]()
    observations, actions = batch_for(agent)
    refused(agent, lambda: agent.update((observations[:, :7], actions[:, :7])), "observations must be (B, 9, 4)")
    refused(
        agent, lambda: agent.update((observations, actions[:3])), "actions must be (4, 9, 2)", "got shape (3, 9, 2)"
    )


# Options


@every_agent
def test_options_are_checked_when_they_are_set(agent):
    refused(agent, lambda: agent.with_options(sped=2.0), "unknown option 'sped'")
    if type(agent) is StableBaselinesAgent:
        return  # it has none
    for field in dataclasses.fields(agent.config):
        value = getattr(agent.config, field.name)
        for wrong in ("nothing of the kind", np.nan, *([] if field.default is None else [None])):
            with pytest.raises(
                ValueError, match=re.escape(f"{type(agent.config).__name__}: {field.name}") + r".* must be "
            ):
                agent.with_options(**{field.name: wrong})
        assert agent.with_options(**{field.name: value}).config == agent.config
    with pytest.raises(ValueError, match=r"steps must be a valid integer, got 2\.5"):
        EVERY["trajectory_model"]().with_options(steps=2.5)


@every_agent
def test_an_agent_with_options_is_another_with_the_same_weights(agent):
    on_course(agent, steps=2)
    twin = agent.with_options()
    assert isinstance(twin, Agent) and twin is not agent and twin.parameters == agent.parameters
    plain = drive(agent, 3)
    on_course(agent, steps=2)
    drive(twin.reset(np.stack([goal_of(twin)] * 2), seed=9) or twin, 3)
    assert np.array_equal(plain, drive(agent, 3)), "the twin's episode is its own"
