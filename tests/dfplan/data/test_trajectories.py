import dataclasses
import hashlib
import tracemalloc

import numpy as np
import pytest

from dfplan.data.trajectories import Steps, Trajectories
from dfplan.data.windows import Windows


def counted(lengths: list[int], name: str = "counted") -> Trajectories:
    """Episodes whose observation says (episode, step within it) and whose action is the flat index."""
    episode = np.repeat(np.arange(len(lengths)), lengths)
    step = np.concatenate([np.arange(n) for n in lengths])
    flat = np.arange(len(step), dtype=np.float32)
    starts = np.cumsum([0, *lengths[:-1]], dtype=np.int64)
    observations = np.stack([episode, step], axis=1).astype(np.float32)
    return Trajectories(observations, flat[:, None], flat, starts, name)


def brute_force_starts(lengths: list[int], span: int) -> list[int]:
    begins = np.cumsum([0, *lengths[:-1]])
    return [int(b) + i for b, n in zip(begins, lengths, strict=True) for i in range(n - span + 1)]


def test_episode_ends_close_every_episode():
    trajectories = counted([3, 1, 5])
    assert len(trajectories) == 9
    np.testing.assert_array_equal(trajectories.episode_starts, [0, 3, 4])
    np.testing.assert_array_equal(trajectories.episode_ends, [3, 4, 9])


def test_fingerprint_follows_the_data_and_nothing_else():
    first, again, renamed = counted([3, 4]), counted([3, 4]), counted([3, 4], name="other")
    assert len(first.fingerprint) == 64
    assert first.fingerprint == again.fingerprint == renamed.fingerprint
    rewards = first.rewards.copy()
    rewards[2] += 1
    changed = {
        dataclasses.replace(first, rewards=rewards).fingerprint,
        dataclasses.replace(first, episode_starts=np.array([0, 4])).fingerprint,
        dataclasses.replace(first, observations=first.observations[:, :1].copy()).fingerprint,
    }
    assert len(changed | {first.fingerprint}) == 4


def test_fingerprint_is_the_documented_digest():
    # It is stored beside trained weights, so it must mean the same in every version.
    content = b"observations (3, 2)\n" + np.array([[0, 0], [0, 1], [1, 0]], "<f4").tobytes()
    content += b"actions (3, 1)\n" + np.arange(3, dtype="<f4").tobytes()
    content += b"rewards (3,)\n" + np.arange(3, dtype="<f4").tobytes()
    content += b"episode_starts (2,)\n" + np.array([0, 2], "<i8").tobytes()
    assert counted([2, 1]).fingerprint == hashlib.sha256(content).hexdigest()


def test_arrays_are_read_only_views_of_what_was_given():
    actions = np.zeros((2, 1), np.float32)
    trajectories = Trajectories(np.zeros((2, 3), np.float32), actions, np.zeros(2, np.float32), np.array([0]), "x")
    assert np.shares_memory(trajectories.actions, actions)
    with pytest.raises(ValueError, match="read-only"):
        trajectories.actions[0] = 1
    actions[0] = 1  # the caller's own array stays writeable


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("observations", np.zeros(4, np.float32), r"mine: 'observations' has shape \(4,\)"),
        ("observations", np.zeros((0, 2), np.float32), r"mine: 'observations' has shape \(0, 2\)"),
        ("actions", np.zeros((4, 1)), "mine: 'actions' is float64; expected float32"),
        ("actions", np.full((4, 1), "a"), "mine: 'actions' holds <U1; expected an array of numbers"),
        ("actions", [[0.0]] * 4, "mine: 'actions' holds list"),
        ("rewards", np.zeros(3, np.float32), "mine: 'rewards' has 3 steps but 'observations' has 4"),
        ("rewards", np.array([0, 0, np.nan, 0], np.float32), "mine: 'rewards' holds NaN or infinity, first at step 2"),
        ("actions", np.array([[0], [np.inf], [0], [0]], np.float32), "mine: 'actions' holds NaN.* first at step 1"),
        ("episode_starts", np.array([0, 2], np.int32), "mine: 'episode_starts' must be a one-dimensional int64"),
        ("episode_starts", np.array([1, 2]), "mine: 'episode_starts' must begin at 0"),
        ("episode_starts", np.array([0, 2, 2]), "mine: 'episode_starts' must begin at 0"),
        ("episode_starts", np.array([0, 4]), r"mine: 'episode_starts' .* number of steps \(4\)"),
        ("episode_starts", np.array([], np.int64), "mine: 'episode_starts' must begin at 0"),
        ("observations", np.array([]), r"mine: 'observations' has shape \(0,\)"),
        (
            "observations",
            np.zeros((4, 2), complex),
            "mine: 'observations' holds complex128; expected an array of numbers",
        ),
        ("observations", [[0.0], [0.0, 1.0]], "mine: 'observations' holds list; expected an array of numbers"),
        ("terminations", np.zeros(4), "mine: 'terminations' must be a one-dimensional bool array"),
        ("truncations", [True] * 4, "mine: 'truncations' must be a one-dimensional bool array"),
        ("truncations", np.zeros(3, bool), "mine: 'truncations' has 3 steps but 'observations' has 4"),
        (
            "last_observations",
            np.zeros((2, 2), np.float32),
            "mine: 'last_observations' has 2 rows but 'episode_starts' has 1",
        ),
        (
            "last_observations",
            np.zeros((1, 3), np.float32),
            "mine: 'last_observations' have 3 columns but 'observations' 2",
        ),
        ("last_observations", np.full((1, 2), np.nan, np.float32), "mine: 'last_observations' holds NaN"),
    ],
)
def test_bad_arrays_are_named(key, value, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(counted([4], name="mine"), **{key: value})


def test_ends_are_cuts_until_the_data_say_that_the_task_ended():
    plain = counted([3, 2])
    assert not plain.terminations.any() and plain.last_observations is None
    np.testing.assert_array_equal(plain.truncations, [False, False, True, False, True])
    ended = dataclasses.replace(plain, terminations=np.arange(5) == 2, truncations=None)
    np.testing.assert_array_equal(ended.truncations, [False, False, False, False, True])
    with pytest.raises(ValueError, match="read-only"):
        ended.terminations[0] = True


def test_the_fingerprint_follows_terminations_and_is_without_them_what_it_was():
    plain = counted([3, 2])
    ended = dataclasses.replace(plain, terminations=np.arange(5) == 2)
    other = dataclasses.replace(plain, terminations=np.arange(5) == 4)
    assert len({plain.fingerprint, ended.fingerprint, other.fingerprint}) == 3
    observed = dataclasses.replace(plain, last_observations=np.zeros((2, 2), np.float32))
    assert (
        observed.fingerprint
        == dataclasses.replace(plain, terminations=np.zeros(5, bool)).fingerprint
        == plain.fingerprint
    )


def test_steps_are_those_of_which_it_is_known_what_followed():
    plain = counted([3, 2])
    np.testing.assert_array_equal(Steps(plain).indices, [0, 1, 3])
    ended = dataclasses.replace(plain, terminations=np.arange(5) == 2)
    np.testing.assert_array_equal(Steps(ended).indices, [0, 1, 2, 3])
    np.testing.assert_array_equal(Steps(ended, observed=True).indices, [0, 1, 3])
    observed = dataclasses.replace(ended, last_observations=np.array([[0, 8], [1, 9]], np.float32))
    steps = Steps(observed)
    np.testing.assert_array_equal(steps.indices, np.arange(5))
    s, a, r, s_next, terminated = steps.gather(np.arange(5))
    np.testing.assert_array_equal(s, observed.observations)
    np.testing.assert_array_equal(s_next, [[0, 1], [0, 2], [0, 8], [1, 1], [1, 9]])
    np.testing.assert_array_equal(terminated, [0, 0, 1, 0, 0])
    np.testing.assert_array_equal(a[:, 0], r)
    assert Steps(ended).gather(np.array([2]))[3].tolist() == [[0, 2]]  # its own observation stands for none


@pytest.mark.parametrize("lengths", [[7], [3, 8, 2, 5], [1, 1, 9, 1], [4, 4, 4]])
@pytest.mark.parametrize(("length", "stride"), [(1, 1), (3, 1), (2, 3), (4, 1)])
def test_windows_are_exactly_those_inside_one_episode(lengths, length, stride):
    trajectories, span = counted(lengths), (length - 1) * stride + 1
    windows, expected = Windows(trajectories, length, stride), brute_force_starts(lengths, span)
    assert len(windows) == len(expected)
    np.testing.assert_array_equal(windows.starts(np.arange(len(windows))), expected)
    observations, actions = windows.gather(np.arange(len(windows)))
    assert observations.shape == (len(expected), length, 2) and actions.shape == (len(expected), length, 1)
    flat = np.array(expected)[:, None] + stride * np.arange(length)
    np.testing.assert_array_equal(actions[..., 0], flat)
    np.testing.assert_array_equal(observations, trajectories.observations[flat])
    assert (observations[..., 0] == observations[:, :1, 0]).all()  # one episode each


def test_sample_is_uniform_over_windows_and_a_function_of_the_generator():
    windows = Windows(counted([3, 10, 6]), 3)
    _, first = windows.sample(np.random.default_rng(1), 4000)
    _, again = windows.sample(np.random.default_rng(1), 4000)
    np.testing.assert_array_equal(first, again)
    drawn, counts = np.unique(first[:, 0, 0], return_counts=True)
    np.testing.assert_array_equal(drawn, brute_force_starts([3, 10, 6], 3))
    assert counts.min() > 200  # 13 windows, 308 expected each, deviation 17


def test_a_gathered_batch_is_a_contiguous_copy():
    windows = Windows(counted([9]), 4, stride=2)
    for array, source in zip(windows.gather([0, 1]), (windows.observation_views, windows.action_views), strict=True):
        assert array.flags.c_contiguous and array.flags.writeable and array.dtype == np.float32
        assert not np.shares_memory(array, source)


def test_windows_that_do_not_fit_or_exist_are_refused():
    trajectories = counted([3, 5], name="mine")
    with pytest.raises(ValueError, match=r"mine: no episode is long enough .* \(7 environment steps\); .* has 5"):
        Windows(trajectories, 4, stride=2)
    for length, stride in ((0, 1), (1, 0)):
        with pytest.raises(ValueError, match="at least 1"):
            Windows(trajectories, length, stride)
    windows = Windows(trajectories, 3)
    for index in (-1, len(windows)):
        with pytest.raises(IndexError, match=r"0\.\.3"):
            windows.gather([index])


def test_four_million_steps_are_windowed_without_a_copy():
    steps = 4_000_000
    rng = np.random.default_rng(0)
    observations = rng.standard_normal((steps, 4), dtype=np.float32)
    trajectories = Trajectories(
        observations,
        np.zeros((steps, 2), np.float32),
        np.zeros(steps, np.float32),
        np.arange(0, steps, 8000),
        "four million",
    )
    tracemalloc.start()
    try:
        windows = Windows(trajectories, 500)
        batch, _ = windows.sample(rng, 64)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert np.shares_memory(windows.observation_views, observations)
    assert np.shares_memory(windows.action_views, trajectories.actions)
    assert len(windows) == 500 * 7501
    assert peak < 4 * batch.nbytes  # a batch and its indices; a list of starts would be 30 MB more
