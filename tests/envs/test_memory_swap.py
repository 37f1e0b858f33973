"""Two objects are exchanged over three places: the arm, the task, what is observed, and the demonstrations."""

import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from stable_baselines3.common.env_checker import check_env as check_for_stable_baselines

pytest.importorskip("ogbench", reason="OGBench is not installed: pip install -e '.[robots]'")

from dfplan.envs import memory_swap_script
from dfplan.envs.memory_swap import AT_REST, HEIGHT, HELD, PLACES, REST, MemorySwapEnv, Table, standing_at
from dfplan.envs.memory_swap_script import Swaps, demonstrate, moves
from dfplan.envs.registry import MEMORY_SWAPS, find
from dfplan.envs.shards import episodes


@pytest.fixture(scope="module")
def env():
    return find("memory-swap").make(disable_env_checker=True)


@pytest.fixture(scope="module")
def played(env):
    """One demonstration without noise: its arrays, and the places of cube and can after each step."""
    env.reset(seed=3)
    script, places, rests = moves(env.unwrapped, np.random.default_rng(0)), [], []
    terminated = False
    while not terminated:
        _, reward, terminated, truncated, info = env.step(next(script))
        places.append(tuple(info["at"].tolist()))
        rests.append(bool(np.linalg.norm(env.unwrapped.table.gripper[:3] - REST) < AT_REST))
        assert not truncated and reward == float(terminated) == float(info["success"])
    return env.unwrapped.starts.tolist(), places, rests


@pytest.mark.filterwarnings("ignore:.*infinity.*:UserWarning")
@pytest.mark.parametrize("options", [{}, {"corrupted": 0.5}])
def test_the_checkers_of_gymnasium_and_stable_baselines_pass(options):
    checked = MemorySwapEnv(**options)
    check_env(checked, skip_render_check=True)
    check_for_stable_baselines(checked, warn=False)


def test_the_script_exchanges_the_objects_in_three_moves_and_stays_at_rest(played):
    (cube, can), places, rests = played
    spare = 3 - cube - can
    stands = [at for at in places if -1 not in at]
    stages = [at for i, at in enumerate(stands) if i == 0 or at != stands[i - 1]]
    assert stages == [(cube, can), (spare, can), (spare, cube), (can, cube)]
    assert 90 < len(places) < 140 and all(rests[-HELD:])
    for stage in stages[1:]:
        assert any(rest for rest, at in zip(rests, places, strict=True) if at == stage), "each move ends at rest"


def test_a_place_is_a_start_for_some_and_an_end_for_others():
    """What each stage looks like at rest, by the places of cube and can: every picture asks for three different things."""
    asked = {}
    for cube in range(3):
        for can in {0, 1, 2} - {cube}:
            spare = 3 - cube - can
            for stage, picture in enumerate([(cube, can), (spare, can), (spare, cube), (can, cube)]):
                asked.setdefault(picture, set()).add(("cube", "can", "cube", "nothing")[stage])
    assert len(asked) == 6 and all(what == {"cube", "can", "nothing"} for what in asked.values())


def test_an_episode_is_a_function_of_its_seed(env):
    def rolled(seed):
        seen = [env.reset(seed=seed)[0]]
        return np.array(seen + [env.step(np.array([0.3, -0.2, -0.5, 1.0]))[0] for _ in range(4)])

    first = rolled(1)
    assert np.array_equal(first, rolled(1)) and not np.array_equal(first, rolled(2))


def test_the_arm_stays_where_it_is_and_goes_where_it_is_sent(env):
    env.reset(seed=0)
    before = env.unwrapped.table.gripper[:3]
    for _ in range(5):
        env.step(np.zeros(4))
    after = env.unwrapped.table.gripper[:3]
    assert np.linalg.norm(after - before) < 0.015
    for _ in range(2):
        env.step(np.array([0.0, 1.0, 0.0, -1.0]))
    moved = env.unwrapped.table.gripper[:3] - after
    assert moved[1] > 0.05 and np.abs(moved[[0, 2]]).max() < 0.02


def test_an_observation_says_where_gripper_and_objects_are(env):
    observation, _ = env.reset(seed=5)
    table = env.unwrapped.table
    middle = np.array([0.425, 0.0, 0.0])
    assert np.allclose(observation[:3] / 10 + middle, table.gripper[:3])
    assert np.allclose(observation[5:11].reshape(2, 3) / 10 + middle, table.objects)
    assert np.allclose(observation[11:].reshape(2, 3) / 10 + table.gripper[:3], table.objects)


def test_an_object_stands_on_the_place_that_it_is_near_and_not_in_the_air():
    assert [standing_at(np.array([*place, HEIGHT])) for place in PLACES] == [0, 1, 2]
    assert standing_at(np.array([*PLACES[1] + [0.0, 0.04], HEIGHT])) == -1
    assert standing_at(np.array([*PLACES[1], HEIGHT + 0.03])) == -1


def test_corrupted_observations_are_marked_in_info_and_change_nothing_else(env):
    """The same actions from the same start: clean, corrupted and missing observations of one history."""
    told = MemorySwapEnv(corrupted=0.5, told=True)
    wrong = MemorySwapEnv(corrupted=0.5)
    steps = {}
    for name, one in (("clean", env), ("told", told), ("wrong", wrong)):
        seen = [one.reset(seed=7)]
        for _ in range(12):
            observation, _, _, _, info = one.step(np.array([0.2, 0.1, -0.2, 0.0]))
            seen.append((observation, info))
        steps[name] = seen
    lost = [info["corrupted"] for _, info in steps["told"]]
    assert 0 < sum(lost) < len(lost) and not any(info["corrupted"] for _, info in steps["clean"])
    assert lost == [info["corrupted"] for _, info in steps["wrong"]]
    for gone, (clean, _), (missing, _), (other, _) in zip(lost, *steps.values(), strict=True):
        assert np.isnan(missing).all() if gone else np.array_equal(missing, clean)
        assert np.isfinite(other).all() and np.array_equal(other, clean) != gone


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"observe": "touch"}, "observe must be 'state' or 'camera', got 'touch'"),
        ({"corrupted": 1.5}, "corrupted must be a share from 0 to 1, got 1.5"),
        ({"distractor": True}, "distractor=True needs observe='camera'"),
    ],
)
def test_options_that_make_no_sense_are_refused(options, sentence):
    with pytest.raises(ValueError, match=sentence):
        MemorySwapEnv(**options)


def test_its_tasks_share_their_data_by_what_is_observed():
    data = [find(name).data_id for name in MEMORY_SWAPS]
    assert data == 3 * ["memory-swap-v0"] + 4 * ["memory-swap-camera-v0"]


def test_demonstrations_succeed_and_are_a_function_of_their_seed(tmp_path):
    recipe = Swaps("memory-swap-v0", 0.1, 200, seed=4)
    arrays = recipe.collect(0, tmp_path)
    again = recipe.collect(0, tmp_path)
    assert all(np.array_equal(arrays[name], again[name]) for name in arrays)
    first, last = episodes(arrays)
    assert first["terminations"][-1] and first["rewards"].sum() == 1 and last["truncations"][-1]
    assert first["observations"].shape == (len(first["actions"]) + 1, 17)


def test_an_episode_that_fails_is_no_demonstration(env):
    arrays, whole = demonstrate(env, 1000, np.random.default_rng(0), noise=40.0, seed=0)
    assert not whole and len(arrays["actions"]) == 200


def test_a_missed_grasp_is_mended(env, monkeypatch):
    """The first grasp misses on purpose; the object is taken at the second, and the episode ends with success."""
    env.reset(seed=3)
    table, raised = env.unwrapped.table, []
    script, terminated, truncated = moves(env.unwrapped, np.random.default_rng(0)), False, False
    monkeypatch.setattr(memory_swap_script, "MISSES", 1.0)
    while not (terminated or truncated):
        closed = table.gripper[3] > 0.3
        _, _, terminated, truncated, _ = env.step(next(script))
        if closed and table.gripper[2] > 0.08 and not raised:
            raised.append(table.objects[:, 2].max())
            monkeypatch.setattr(memory_swap_script, "MISSES", 0.0)
    assert terminated and raised[0] < 0.04, "the gripper came up closed, and both objects stood"


def test_an_episode_in_which_an_object_is_knocked_away_is_no_demonstration(env, monkeypatch):
    monkeypatch.setattr(memory_swap_script, "KNOCKED", 0.0)
    arrays, whole = demonstrate(env, 200, np.random.default_rng(0), noise=0.0, seed=0)
    assert arrays["terminations"][-1] and not whole


@pytest.fixture
def drawing():
    """Skips a test where nothing draws."""
    mujoco = pytest.importorskip("mujoco")
    try:
        mujoco.Renderer(mujoco.MjModel.from_xml_string("<mujoco/>"), 8, 8).close()
    except Exception as error:  # whatever a library that is not there raises
        pytest.skip(f"nothing draws here: {error}")


def test_where_nothing_draws_one_sentence_says_what_helps(monkeypatch):
    def without(*given, **named):
        raise RuntimeError("no OpenGL\nand more")

    monkeypatch.setattr(Table, "render", without)
    with pytest.raises(OSError, match=r"^no picture can be drawn here \(no OpenGL\): set MUJOCO_GL to egl or osmesa$"):
        MemorySwapEnv(observe="camera").reset(seed=0)


def test_a_missing_frame_is_black_and_a_corrupted_one_random(drawing):
    lost = MemorySwapEnv(observe="camera", corrupted=1.0, told=True)
    wrong = MemorySwapEnv(observe="camera", corrupted=1.0)
    (missing, info), (other, _) = lost.reset(seed=0), wrong.reset(seed=0)
    assert info["corrupted"] and not missing["camera"].any() and np.isnan(missing["gripper"]).all()
    assert other["camera"].std() > 60 and np.isfinite(other["gripper"]).all()


def test_demonstrations_with_pictures_hold_them_as_they_are(drawing, tmp_path):
    recipe = Swaps.own(find("memory-swap-camera"), quick=True).changed(8)
    arrays = recipe.collect(0, tmp_path)
    pictures = arrays["observations/camera"]
    assert pictures.shape == (9, 64, 64, 3) and pictures.dtype == np.uint8 and pictures.std(0).max() > 5
    assert arrays["observations/gripper"].dtype == np.float32 and pictures[0].size < recipe.BYTES_PER_STEP


def test_the_camera_sees_the_table_and_a_ball_before_it(drawing):
    with_ball = MemorySwapEnv(observe="camera", distractor=True, corrupted=0.5)
    plain = MemorySwapEnv(observe="camera")
    seen, _ = plain.reset(seed=0)
    assert seen["camera"].shape == (64, 64, 3) and plain.observation_space.contains(seen)
    other, info = with_ball.reset(seed=0)
    assert info["corrupted"] or 0 < (other["camera"] != seen["camera"]).mean() < 0.5
    for one in (with_ball, plain):
        one.close()
