"""`dfplan.load` on what is in memory, and features of what was read; files have their own tests."""

import dataclasses

import numpy as np
import pytest

import dfplan
from dfplan.data.features import Features
from dfplan.data.goals import mixing_steps
from dfplan.data.spec import Spec
from dfplan.data.trajectories import Trajectories

STEPS = 10


def arrays(**other: object) -> dict[str, object]:
    rng = np.random.default_rng(0)
    given = {
        "observations": rng.standard_normal((STEPS, 4)),
        "actions": rng.standard_normal((STEPS, 2)),
        "rewards": np.arange(STEPS),
        "truncations": np.arange(STEPS) == 3,
    }
    return {key: value for key, value in (given | other).items() if value is not None}


def test_arrays_in_memory_are_data_and_data_stay_as_they_are():
    data = dfplan.load(arrays(terminations=np.arange(STEPS) == 6, last_observations=np.ones((3, 4))))
    assert data.episode_starts.tolist() == [0, 4, 7] and data.features == Features()
    assert np.flatnonzero(data.truncations).tolist() == [3, 9] and np.flatnonzero(data.terminations).tolist() == [6]
    np.testing.assert_array_equal(data.observations, np.float32(arrays()["observations"]))
    assert data.returns.tolist() == [0 + 1 + 2 + 3, 4 + 5 + 6, 7 + 8 + 9] and data.last_observations.shape == (3, 4)
    assert dfplan.load(data) is data
    lists = {key: np.asarray(value).tolist() for key, value in arrays().items()} | {"episode_starts": [0, 4]}
    assert dfplan.load(lists).fingerprint == dfplan.load(arrays()).fingerprint
    plain = dfplan.load(arrays(rewards=None, truncations=None, episode_starts=np.array([0, 5])))
    assert not plain.rewards.any() and plain.truncations.sum() == 2


def test_terminals_without_rewards_are_cut_offs_and_with_them_terminations():
    ends = {"terminals": np.arange(STEPS) == 4, "truncations": None}
    ogbench, d4rl = dfplan.load(arrays(rewards=None, **ends)), dfplan.load(arrays(**ends))
    assert len(ogbench) == STEPS - 2 and not ogbench.terminations.any()
    np.testing.assert_array_equal(ogbench.last_observations, np.float32(arrays()["observations"])[[4, 9]])
    assert len(d4rl) == STEPS and np.flatnonzero(d4rl.terminations).tolist() == [4]


def test_observations_in_memory_may_be_a_dictionary_with_goals():
    rng = np.random.default_rng(0)
    seen = {
        key: rng.standard_normal((STEPS, n))
        for key, n in (("observation", 3), ("achieved_goal", 2), ("desired_goal", 2))
    }
    data = dfplan.load(arrays(observations=seen, next_observations=seen))
    expected = np.float32(np.hstack([seen["observation"], seen["achieved_goal"]]))
    np.testing.assert_array_equal(data.observations, expected)
    np.testing.assert_array_equal(data.last_observations, expected[[3, 9]])
    assert data.features.goal_key == "desired_goal" and data.features.goal_columns == (3, 4)
    mixing = mixing_steps(data, (3, 4))
    assert 0 < mixing < 6
    assert Spec.of(data) == Spec(5, 2, (3, 4), data.features, 6, mixing, rewards=True, terminates=False)


@dfplan.register_features("test_load: planar")
def planar(x):
    """Sums of pairs of columns."""
    return x[..., ::2] + x[..., 1::2]


def test_features_of_data_are_seen_by_last_observations_and_the_fingerprint_too():
    plain = dfplan.load(arrays(last_observations=np.ones((2, 4))))
    data = dfplan.load(plain, features=planar, goal=(1,))
    np.testing.assert_array_equal(data.observations, planar(plain.observations))
    np.testing.assert_array_equal(data.last_observations, [[2, 2], [2, 2]])
    assert data.features == Features(function="test_load: planar", goal_columns=(1,), widths=(4,))
    assert Spec.of(data).goal_columns == (1,) and Spec.of(data, ()).goal_columns == ()
    goals = [dfplan.load(plain, goal=goal) for goal in (None, (), (0,), (1,))]
    assert len({one.fingerprint for one in (*goals, data)}) == 4
    assert goals[0] is goals[1] is plain
    moved = dfplan.load(data, goal=(0,))
    assert moved.features == dataclasses.replace(data.features, goal_columns=(0,))
    np.testing.assert_array_equal(moved.observations, data.observations)
    with pytest.raises(ValueError, match="the observations are features already; load their source with other ones"):
        dfplan.load(data, features=(0,))


def test_a_spec_says_what_the_data_say():
    constant = dfplan.load(arrays(rewards=np.ones(STEPS), terminations=np.zeros(STEPS)))
    assert Spec.of(constant) == Spec(4, 2, (), Features(), 6, rewards=False, terminates=False)
    ended = dfplan.load(arrays(rewards=np.ones(STEPS), terminations=np.arange(STEPS) == 6))
    assert Spec.of(ended) == Spec(4, 2, (), Features(), 4, rewards=True, terminates=True)
    assert Spec(4, 2, (0, 1)) == Spec(4, 2, goal_columns=(0, 1), features=Features(), longest=0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"observations": None}, "the arrays: the key 'observations' is missing; there are"),
        ({"actions": None}, "the arrays: the key 'actions' is missing"),
        (
            {"truncations": None},
            "no key says where episodes end; expected one of terminals, .*; there are actions, obs",
        ),
        ({"actions": np.zeros(STEPS)}, r"'actions' has shape \(10,\); expected \(steps, width\)"),
        ({"actions": np.zeros(STEPS, int)}, "actions of a Discrete space cannot be learned"),
        ({"observations": [np.zeros((3, 4)), np.zeros((7, 4))]}, "must be real numbers .*, got a list of 2"),
        ({"actions": np.zeros((9, 2))}, "the arrays differ in length: .*'actions': 9"),
        ({"actions": [["a"]] * STEPS}, "'actions' must be real numbers"),
        ({"observations": np.zeros((STEPS, 2, 2))}, r"'observations' has shape \(10, 2, 2\)"),
        ({"observations": {"a": np.zeros((STEPS, 2)), "b": np.zeros((9, 2))}}, "the arrays: .* the same leading sizes"),
        ({"rewards": np.full(STEPS, np.nan)}, "'rewards' holds NaN or infinity, first at step 0"),
        ({"rewards": np.full(STEPS, 1e300)}, "'rewards' holds NaN or infinity"),
        ({"episode_starts": np.array([0, 2.5])}, "'episode_starts' must be whole numbers"),
        ({"episode_starts": np.array([0, 20])}, "'episode_starts' must begin at 0, ascend"),
        ({"last_observations": np.zeros((2, 3))}, r"must be \(..., 4\), got \(2, 3\)"),
    ],
)
def test_bad_arrays_are_refused_in_one_sentence(change, message):
    with pytest.raises(ValueError, match=message) as raised:
        dfplan.load(arrays(**change))
    assert str(raised.value).startswith("the arrays: ") and "\n" not in str(raised.value)


def test_npz_files_name_the_keys_that_they_have(tmp_path):
    np.savez(tmp_path / "a.npz", observations=np.zeros((3, 2)), actions=np.zeros((3, 1)), dones=np.zeros(3))
    with pytest.raises(ValueError, match=r"no key says where episodes end; .*; there are actions, dones, observations"):
        dfplan.load(tmp_path / "a.npz")


@pytest.mark.parametrize("source", [None, 3, [arrays()], (np.zeros((9, 2)), np.zeros((9, 1))), np.zeros((9, 2))])
def test_what_is_neither_a_name_nor_arrays_is_named_by_its_type(source):
    with pytest.raises(ValueError, match=r"data must be a path, .*; got a ") as raised:
        dfplan.load(source)
    assert str(raised.value).endswith(type(source).__name__)


def test_weights_are_no_data():
    with pytest.raises(ValueError, match=r"its ending is that of weights, which dfplan\.load_agent loads"):
        dfplan.load("robot.safetensors")


def test_data_print_as_one_line():
    data = dfplan.load(arrays(), goal=(0, 1))
    lengths = np.diff(np.append(data.episode_starts, len(data)))
    assert "\n" not in repr(data) and f"10 steps in {len(lengths)} episodes of {lengths.min()} to" in repr(data)
    assert "observations of 4 columns" in repr(data) and "goals in columns (0, 1)" in repr(data)


@pytest.mark.parametrize("goal", [(4,), (-1,), (0.5,), (0, 0), 3, "x"])
def test_goals_that_are_no_columns_are_refused(goal):
    for source in (arrays(), dfplan.load(arrays())):
        with pytest.raises(ValueError, match="goal"):
            dfplan.load(source, goal=goal)


def test_goal_columns_of_data_must_exist():
    with pytest.raises(
        ValueError, match=r"the arrays: goal columns must be different columns .* in 0\.\.3, got \(9,\)"
    ):
        dataclasses.replace(dfplan.load(arrays()), features=Features(goal_columns=(9,)))
    assert isinstance(dfplan.load(arrays()), Trajectories)
