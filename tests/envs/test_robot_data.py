"""Collections of robots' data, tiny: their form, their recipes, and what an interruption does to them."""

import json
import subprocess
import sys
import time
from copy import deepcopy
from dataclasses import replace

import minari
import numpy as np
import pytest

from dfplan.envs import collect as module
from dfplan.envs import fetch, locomotion, ogbench
from dfplan.envs.collect import collect, own_recipe
from dfplan.envs.fetch import Demonstrations
from dfplan.envs.locomotion import Rollouts, chosen, snapshots, train
from dfplan.envs.packages import Package
from dfplan.envs.registry import TASKS, find, make
from dfplan.envs.shards import Recorder, episodes, make_shards, shard_path


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    return tmp_path / "minari"


def same(one, two):
    return one.keys() == two.keys() and all(np.array_equal(one[name], two[name]) for name in one)


# What all have in common


@pytest.mark.parametrize(
    "task",
    [task for task in TASKS.values() if task.suite != "maze2d" and not task.published],
    ids=lambda task: task.env_id,
)
def test_every_robot_has_a_recipe_that_json_carries(task):
    if task.package:
        pytest.importorskip(task.package.module)
    whole, quick = own_recipe(task), own_recipe(task, quick=True)
    # A set of OGBench's mazes has whole episodes of 201, 1,001 or 2,001 steps.
    assert abs(whole.steps / {"fetch": 100_000, "memory": 30_000}.get(task.suite, 1_000_000) - 1) <= 0.005
    assert quick.steps == min(whole.steps, 200_000)
    assert type(whole)(**json.loads(json.dumps(whole.fields))) == whole
    assert whole.fingerprint() != quick.fingerprint() or whole == quick


def test_a_recorder_cuts_the_last_episode_and_the_episodes_come_back():
    recorder, rng, recorded = Recorder(7), np.random.default_rng(0), []
    for length in (2, 3, 9):
        rows = rng.random((length + 1, 2))
        recorder.begin({"observation": rows[0], "achieved_goal": rows[0, :1]})
        recorded.append(rows)
        for step, row in enumerate(rows[1:], start=1):
            seen, last = {"observation": row, "achieved_goal": row[:1]}, step == length
            if not recorder.step([0.5], seen, 1.0, terminated=last and length == 2, truncated=last and length == 3):
                break
    found = list(episodes(recorder.arrays()))
    assert [len(one["actions"]) for one in found] == [2, 3, 2]
    for rows, one in zip(recorded, found, strict=True):
        n = len(one["actions"])
        assert np.array_equal(one["observations"]["observation"], rows[: n + 1].astype(np.float32))
        assert one["observations"]["achieved_goal"].shape == (n + 1, 1)
    assert [one["terminations"][-1] for one in found] == [True, False, False]
    assert [one["truncations"][-1] for one in found] == [False, True, True]


def test_data_of_a_missing_package_is_refused_before_anything_is_written(root, monkeypatch, capsys):
    missing = replace(TASKS["cube-single-v0"], package=Package("no_such_package", "no-such-package>=3"))
    monkeypatch.setitem(TASKS, "cube-single-v0", missing)
    monkeypatch.setattr(sys, "argv", ["collect", "--env", "cube-single"])
    assert module.main() == 2
    assert capsys.readouterr().err == (
        "error: data of cube-single-v0 needs the package no_such_package, which is not installed: "
        "pip install 'no-such-package>=3'\n"
    )
    assert not root.exists()


# Fetch


def test_fetch_data_keep_the_goals_and_do_not_depend_on_workers(root, monkeypatch):
    pytest.importorskip("gymnasium_robotics")
    monkeypatch.setattr(Demonstrations, "SHARD_STEPS", 60)
    assert collect("FetchReach", steps=130, workers=1, quiet=True) == "dfplan/FetchReach-v4"
    dataset = minari.load_dataset("dfplan/FetchReach-v4")
    found = list(dataset.iterate_episodes())
    assert [len(one) for one in found] == [50, 10, 50, 10, 10] and dataset.total_steps == 130
    assert dataset.env_spec.id == "FetchReach-v4"
    for one in found:
        goals, places = one.observations["desired_goal"], one.observations["achieved_goal"]
        assert one.observations["observation"].shape == (len(one) + 1, 10)
        assert np.array_equal(places, one.observations["observation"][:, :3]) and np.all(goals == goals[0])
        reached = np.linalg.norm(places - goals, axis=1)[1:] < 0.05
        assert np.array_equal(one.rewards, np.where(reached, 0.0, -1.0))
        assert not one.terminations.any() and one.truncations.nonzero()[0].tolist() == [len(one) - 1]


@pytest.mark.parametrize(("name", "script"), [("FetchReach", fetch.reach), ("FetchPush", fetch.push)])
def test_without_noise_the_scripts_reach_their_goals(name, script):
    pytest.importorskip("gymnasium_robotics")
    env, reached = find(name).make(), []
    for seed in range(8):
        observation, _ = env.reset(seed=seed)
        for _ in range(50):
            observation, *_, info = env.step(script(observation).astype(np.float32))
        reached.append(float(info["is_success"]))
    assert np.mean(reached) >= 0.8


# OGBench


def test_play_data_are_a_function_of_their_seed_and_leave_numpys_generator_alone(tmp_path):
    pytest.importorskip("ogbench")
    recipe = ogbench.Play("cube-double-v0", 120, seed=3)
    state = np.random.get_state()[1].tolist()
    make_shards(recipe, tmp_path, workers=1, title="play", quiet=True)
    assert np.random.get_state()[1].tolist() == state
    with np.load(shard_path(tmp_path, 0)) as shard:
        arrays = dict(shard)
    assert arrays["observations"].shape == (121, 37) and arrays["actions"].shape == (120, 5)
    assert np.abs(arrays["actions"]).max() <= 1 and not arrays["rewards"].any()
    assert same(arrays, recipe.collect(0, tmp_path))
    assert not same(arrays, recipe.changed(120, seed=4).collect(0, tmp_path))


@pytest.mark.slow
def test_an_oracle_moves_the_cube_from_place_to_place(tmp_path):
    pytest.importorskip("ogbench")
    arrays = ogbench.Play("cube-single-v0", 1001, seed=0).collect(0, tmp_path)
    (one,) = episodes(arrays)
    places = one["observations"][:, 19:22]
    lying = places[:, 2] < 0.25  # in tenths of a meter
    assert 0.4 < lying.mean() < 0.95, "the cube is lifted now and then, and never lost"
    assert np.ptp(places[lying, :2], axis=0).min() > 1


@pytest.mark.slow
@pytest.mark.parametrize("name", ["cube-triple", "scene", "puzzle-3x3"])
def test_every_environment_has_its_oracles(root, name):
    pytest.importorskip("ogbench")
    collect(name, steps=150, workers=1, quiet=True)
    dataset = minari.load_dataset(f"dfplan/{name}-v0")
    width = make(f"{name}-v0").observation_space.shape
    assert dataset.total_steps == 150 and dataset[0].observations.shape == (151, *width)


def test_a_cube_out_of_sight_is_seen():
    assert ogbench._out_of_sight(np.array([0.4, 0.3, 0.02])) and ogbench._out_of_sight(np.array([0.4, -0.31, 0.02]))
    assert not ogbench._out_of_sight(np.array([0.4, -0.31, 0.07])) and not ogbench._out_of_sight(
        np.array([0.4, 0, 0.02])
    )


# Locomotion


class Named:
    def __init__(self, mean_return):
        self.mean_return = mean_return


def test_the_levels_are_chosen_by_the_snapshots_returns():
    actors = [Named(value) for value in (5.0, 20.0, 45.0, 90.0, 70.0)]
    assert chosen(actors, "expert") == [actors[3]]
    assert chosen(actors, "medium") == [actors[2]]
    assert chosen(actors, "mixed") == actors


@pytest.fixture(scope="module")
def tiny():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(locomotion, "SEGMENT", 120)
        patch.setattr(
            locomotion,
            "SETTINGS",
            {"batch_size": 16, "learning_starts": 50, "policy_kwargs": {"net_arch": [8, 8]}},
        )
        patch.setattr(Rollouts, "SHARD_STEPS", 40)
        yield


@pytest.fixture(scope="module")
def trained(tiny, tmp_path_factory):
    """A folder for shards, and beside it a training of two segments."""
    folder = tmp_path_factory.mktemp("trained") / "shards"
    recipe = Rollouts("hopper", "mixed", 240, 100, seed=0)
    recipe.prepare(folder, quiet=True)
    return recipe, folder


def test_a_training_that_is_interrupted_ends_with_the_same_actors(trained, tmp_path, monkeypatch):
    recipe, folder = trained
    place, train_segment = recipe.training_folder(folder), locomotion._train_segment

    def interrupted(place, env_id, segment, *rest):
        if segment == 2:
            raise KeyboardInterrupt
        train_segment(place, env_id, segment, *rest)

    monkeypatch.setattr(locomotion, "_train_segment", interrupted)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path, "hopper-mixed-own-v0", 240, 0, quiet=True)
    monkeypatch.setattr(locomotion, "_train_segment", train_segment)
    train(tmp_path, "hopper-mixed-own-v0", 240, 0, quiet=True)
    for name in ("actor-0001", "actor-0002", "state-0002"):
        assert (tmp_path / f"{name}.safetensors").read_bytes() == (place / f"{name}.safetensors").read_bytes(), name
    assert len(list(place.glob("*.safetensors"))) == 3


def test_an_actor_is_the_one_that_learned(trained):
    from safetensors.torch import load_file
    from stable_baselines3 import SAC

    recipe, folder = trained
    place = recipe.training_folder(folder)
    model = SAC("MlpPolicy", make("hopper-mixed-own-v0"), device="cpu", **deepcopy(locomotion.SETTINGS))
    model.actor.load_state_dict(load_file(place / "actor-0002.safetensors"))

    class NoNoise:
        def standard_normal(self, size, dtype):
            return np.zeros(size, dtype)

    observation = np.random.default_rng(0).normal(size=11)
    expected, _ = model.predict(observation, deterministic=True)
    np.testing.assert_allclose(snapshots(place)[1](observation, NoNoise()), expected, atol=1e-5)


def test_rollouts_end_where_the_robot_falls_and_are_a_function_of_their_seed(trained):
    recipe, folder = trained
    make_shards(recipe, folder, workers=1, title="rollouts", quiet=True)
    found = []
    for index in range(recipe.shards):
        with np.load(shard_path(folder, index)) as shard:
            arrays = dict(shard)
        assert same(arrays, recipe.collect(index, folder))
        found += episodes(arrays)
    assert sum(len(one["actions"]) for one in found) == 100
    assert any(one["terminations"][-1] for one in found)
    for one in found:
        assert one["terminations"][-1] != one["truncations"][-1] and len(one["observations"]) == len(one["actions"]) + 1


@pytest.mark.slow
def test_a_killed_collection_of_a_robot_goes_on(root):
    pytest.importorskip("gymnasium_robotics")
    program = (
        "import sys; from dfplan.envs.fetch import Demonstrations; Demonstrations.SHARD_STEPS = 100\n"
        "from dfplan.envs.collect import collect\n"
        "collect('FetchReach', steps=1000, workers=1, quiet=True, dataset_id=sys.argv[1])"
    )
    killed = subprocess.Popen([sys.executable, "-c", program, "test/killed-v0"])
    while len(list(root.glob("test/.collecting-killed-v0-*/shard-*.npz"))) < 2 and killed.poll() is None:
        time.sleep(0.01)
    killed.kill()
    assert killed.wait() == -9 and not (root / "test" / "killed-v0").exists()
    for name in ("killed", "whole"):
        subprocess.run([sys.executable, "-c", program, f"test/{name}-v0"], check=True)
    one, two = (root / "test" / f"{name}-v0" / "data" / "main_data.hdf5" for name in ("killed", "whole"))
    assert one.read_bytes() == two.read_bytes()
