"""Online training: what a recipe learns in, what a run leaves, and what an interruption costs."""

import base64
import json
import os
import pickle
import signal
import tempfile
import zipfile
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

import gymnasium
import numpy as np
import pytest
import torch

from dfplan.agents.online import trainer
from dfplan.agents.online.recipe import OnlineRecipe
from dfplan.agents.online.stable_baselines import StableBaselinesAgent
from dfplan.agents.online.trainer import ActionRepeat, new_model
from dfplan.benchmarks import scores as scoring
from dfplan.benchmarks.recipes.online import ONLINE
from dfplan.benchmarks.suites import maze2d
from dfplan.envs.maze.env import Maze2dEnv
from dfplan.envs.registry import find
from dfplan.locks import InUseError
from dfplan.training.checkpoint import CheckpointError
from dfplan.training.interrupt import TrainingInterrupted
from dfplan.training.log import read_records
from dfplan.training.online_loop import OnlineRun
from dfplan.training.run_folder import claimed

sb3 = pytest.importorskip("stable_baselines3")
pytestmark = pytest.mark.filterwarnings("ignore:You are trying to run PPO")
NET = {"net_arch": [8, 8]}


SEEDS = range(1_000, 1_002)
"""Two episodes a score: the bookkeeping is tested here."""


@pytest.fixture(autouse=True)
def few_episodes(monkeypatch):
    monkeypatch.setattr(scoring, "CURVE_SEEDS", SEEDS)
    monkeypatch.setattr(scoring, "SCORE_SEEDS", SEEDS)


def env_of(recipe):
    return partial(find(recipe.env_id).make, **(maze2d.SUITE.with_goal if recipe.hindsight else {}))


def fit_online(recipe, folder, steps=None, **options):
    """Train in the recipe's environment, as the command does; the path of the weights."""
    recipe = replace(recipe, steps=recipe.steps if steps is None else steps)
    scores = {name: partial(getattr(scoring, name), env_id=recipe.env_id) for name in ("measure", "score")}
    trainer.fit_online(recipe, folder, env_of(recipe), quiet=True, **scores, **options)
    return folder / "weights.zip"


def built(recipe, seed=0):
    return new_model(recipe, env_of(recipe), seed)


def recipe_of(name, maze="umaze"):
    task = find(f"maze2d-{maze}")
    return ONLINE[name](f"maze2d-{maze}-{name}", maze2d.learns_in(task, name == "her"), maze2d.budget(task))


def small(name, steps=192):
    """The recipe of a name for a moment's training: two copies, a tiny network, two points on the curve."""
    recipe = recipe_of(name)
    settings = {"n_steps": 32, "batch_size": 32, "n_epochs": 1}
    if name != "ppo":
        settings = {"learning_starts": 160, "batch_size": 8, "buffer_size": 1000, "train_freq": 4}
    settings = dict(recipe.settings) | settings | {"policy_kwargs": NET}
    return replace(recipe, copies=2, steps=steps, evaluations=2, settings=settings)


@pytest.mark.parametrize("name", ["sac", "td3", "ppo", "her"])
def test_stable_baselines3_takes_the_recipes_as_they_are(name):
    recipe = recipe_of(name)
    model = built(recipe, seed=0)
    assert type(model).__name__ == recipe.algorithm and model.n_envs == recipe.copies
    assert model.gamma == recipe.settings["gamma"]
    if name == "td3":
        assert model.action_noise._sigma.tolist() == pytest.approx([0.5, 0.5])
    if name == "her":
        assert isinstance(model.replay_buffer, sb3.HerReplayBuffer) and model.replay_buffer.n_sampled_goal == 4
    model.env.close()


def test_a_repeated_action_is_that_many_steps():
    recipe = recipe_of("her")
    repeated, single = ActionRepeat(env_of(recipe)(), 4), gymnasium.make(recipe.env_id, goal_conditioned=True)
    repeated.reset(seed=4), single.reset(seed=4)
    action = np.array([0.3, -0.8], dtype=np.float32)
    decisions, ended = 0, False
    while not ended:
        observation, reward, _, ended, _ = repeated.step(action)
        decisions += 1
        for _ in range(4):
            last = single.step(action)
        assert all((observation[key] == last[0][key]).all() for key in observation)
        assert (
            reward
            == last[1]
            == repeated.unwrapped.compute_reward(observation["achieved_goal"], observation["desired_goal"])
        )
    assert decisions == 75 and last[3]


def test_an_episode_that_ends_within_a_repeated_action_is_not_stepped_beyond():
    env = ActionRepeat(gymnasium.make("maze2d-umaze-v1"), 7)
    env.reset(seed=0)
    truncated = [env.step(np.zeros(2))[3] for _ in range(43)]
    assert truncated == [False] * 42 + [True]  # 300 = 42 * 7 + 6


def test_a_run_leaves_weights_that_both_libraries_load_and_a_card(tmp_path, monkeypatch):
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    recipe = small("ppo")
    path = fit_online(recipe, tmp_path / "run", seed=3, about={"name": "a name", "command": "the command"})
    assert list((tmp_path / "temporary").iterdir()) == []
    card = json.loads(path.with_suffix(".json").read_text())
    assert (card["name"], card["command"], card["seed"], card["steps"]) == ("a name", "the command", 3, 192)
    assert card["environment_steps"] == 4 * 192 and card["training_seconds"] > 0
    assert [point["step"] for point in card["curve"]] == [96, 192]
    best = max(card["curve"], key=lambda point: point["normalized"])
    assert card["best_step"] == best["step"]
    assert card["score"]["seeds"] == list(SEEDS) and len(card["score"]["returns"]) == 2
    agent = StableBaselinesAgent.load(path)
    assert agent.card == card and agent.steps == best["step"]
    model = sb3.PPO.load(path, env=gymnasium.make("maze2d-umaze-v1"))
    observation = np.array([3.0, 1.0, 0.0, 0.0])
    assert (model.predict(observation, deterministic=True)[0] == agent.act(observation)).all()
    assert not model.policy.optimizer.state  # its moments are not shipped
    written = path.stat().st_mtime_ns
    assert fit_online(recipe, tmp_path / "run", seed=3) == path
    assert path.stat().st_mtime_ns == written  # a finished run is returned, not trained again


def interrupt_once(monkeypatch, after):
    """Ctrl-C during the given environment step, counted over all copies."""
    step, count = Maze2dEnv.step, 0

    def counting(self, action):
        nonlocal count
        count += 1
        if count == after:
            os.kill(os.getpid(), signal.SIGINT)
        return step(self, action)

    monkeypatch.setattr(Maze2dEnv, "step", counting)


@pytest.mark.skipif(os.name != "posix", reason="sends a signal")
@pytest.mark.parametrize("name", ["sac", "ppo", "her"])
def test_after_ctrl_c_the_same_call_goes_on(name, tmp_path, monkeypatch, capsys):
    recipe = small(name, steps=256)
    interrupt_once(monkeypatch, after=4 * 170 + 2 * 300)  # after one point of the curve
    with pytest.raises(TrainingInterrupted) as caught:
        fit_online(recipe, tmp_path)
    assert caught.value.code == 130
    said = capsys.readouterr().err
    assert "interrupted after step 170 of 256" in said and "run the same command to continue" in said
    state = json.loads((tmp_path / "run.json").read_text())
    assert state["step"] == 170 and [point["step"] for point in state["curve"]] == [128]
    assert not (tmp_path / "weights.zip").exists()
    path = fit_online(recipe, tmp_path)
    card = json.loads(path.with_suffix(".json").read_text())
    assert card["steps"] >= 256 and card["curve"][0] == {k: round(v, 1) for k, v in state["curve"][0].items()}
    assert card["training_seconds"] >= round(state["seconds"], 1)
    steps = [record["step"] for record in read_records(tmp_path / "log.jsonl")]
    assert steps == sorted(set(steps)) and steps[-1] == card["steps"]
    assert [folder.name for folder in tmp_path.glob("checkpoint-*")] == [f"checkpoint-{card['steps']}"]


def test_a_run_that_was_killed_before_its_weights_were_written_writes_them(tmp_path):
    recipe = small("ppo", steps=64)
    path = fit_online(recipe, tmp_path)
    card = json.loads(path.with_suffix(".json").read_text())
    path.unlink(), path.with_suffix(".json").unlink()
    assert fit_online(recipe, tmp_path) == path
    again = json.loads(path.with_suffix(".json").read_text())
    assert again["score"] == card["score"] and again["curve"] == card["curve"]


def test_another_run_in_the_folder_is_left_alone(tmp_path):
    recipe = small("ppo", steps=64)
    fit_online(recipe, tmp_path)
    with pytest.raises(ValueError, match="holds another run: seed is 0 there and 1 here"):
        fit_online(recipe, tmp_path, seed=1)
    with pytest.raises(ValueError, match=r"holds another run: steps is 64 there and 32 here \(64 are done\)"):
        fit_online(recipe, tmp_path, steps=32)
    next(tmp_path.glob("checkpoint-*/model.zip")).write_bytes(b"torn")
    with pytest.raises(CheckpointError, match=r"model\.zip is not a whole zip file"):
        fit_online(recipe, tmp_path)


def test_files_of_somebody_else_are_left_alone(tmp_path):
    """A folder that is no run's is refused, and one that lies in a run's folder under a name like ours stays."""
    recipe = small("sac", steps=160)
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "log.jsonl").write_text("mine")
    with pytest.raises(ValueError, match="holds files, but no run of dfplan"):
        fit_online(recipe, tmp_path / "theirs")
    assert [file.name for file in (tmp_path / "theirs").iterdir()] == ["log.jsonl"]
    run = tmp_path / "run"
    fit_online(small("sac", steps=32), tmp_path / "other")
    for name in ("checkpoint-mine", "checkpoint-5", "checkpoint-6"):
        (run / name).mkdir(parents=True)
        (run / name / "model.zip").write_text("mine")
    (run / "checkpoint-6" / "notes.txt").write_text("mine")
    (run / ".dfplan-run").write_text("online\n")
    (run / "checkpoint-7").symlink_to(tmp_path / "other")
    fit_online(recipe, run)
    left = {file.name for file in run.glob("checkpoint-*")}
    assert left == {"checkpoint-mine", "checkpoint-6", "checkpoint-7", "checkpoint-160"}
    assert (run / "checkpoint-6" / "notes.txt").read_text() == "mine" and (tmp_path / "other" / "weights.zip").is_file()


def test_a_folder_in_which_another_process_trains_is_left_alone(tmp_path):
    with claimed(tmp_path, "online"), pytest.raises(InUseError, match="is locked by process"):
        fit_online(small("ppo"), tmp_path)


@pytest.mark.skipif(os.name != "posix", reason="sends a signal")
@pytest.mark.parametrize("name", ["sac", "her"])
def test_a_run_goes_on_without_unpickling(name, tmp_path, monkeypatch):
    """With the weights, the optimizers' moments, the temperature and the transitions that it had."""
    recipe = small(name, steps=320)
    interrupt_once(monkeypatch, after=4 * 260 + 2 * 300)
    with pytest.raises(TrainingInterrupted):
        fit_online(recipe, tmp_path)
    (folder,) = tmp_path.glob("checkpoint-*")
    assert {file.name for file in folder.iterdir()} == {"model.zip", "best.zip", "replay.safetensors"}
    replaced = {"replay_buffer_class": None} if name == "sac" else {}  # it follows from the number of steps
    expected = sb3.SAC.load(folder / "model.zip", env=built(recipe).env, custom_objects=replaced)
    for file in ("model.zip", "best.zip"):
        infect(folder / file, marker=tmp_path / "marker")

    run = OnlineRun(built(recipe), asdict(recipe), 0, tmp_path, measure=None)
    assert run.step == expected.num_timesteps == 260 and run.model._n_updates == expected._n_updates > 0
    for part, state in expected.get_parameters().items():
        assert_equal(run.model.get_parameters()[part], state)
    assert run.model.log_ent_coef == expected.log_ent_coef != 0
    buffer = run.model.replay_buffer
    assert buffer.pos == 129 and buffer.timeouts[128].all()  # the step at which it was interrupted is not stored
    assert fit_online(recipe, tmp_path).is_file()
    assert not (tmp_path / "marker").exists()


def infect(path, marker):
    """Let every pickle in a model file write the file ``marker``."""
    payload = base64.b64encode(pickle.dumps(Marks(marker))).decode()
    with zipfile.ZipFile(path) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    data = json.loads(entries["data"])
    for item in data.values():
        if isinstance(item, dict) and ":serialized:" in item:
            item[":serialized:"] = payload
    entries["data"] = json.dumps(data).encode()
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in entries.items():
            archive.writestr(name, content)
    assert payload in json.dumps(data)


class Marks:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (Path.write_text, (self.path, "executed"))


def assert_equal(found, expected):
    """Nested dictionaries and lists with equal tensors."""
    if isinstance(expected, dict):
        assert found.keys() == expected.keys()
        for key, value in expected.items():
            assert_equal(found[key], value)
    elif hasattr(expected, "shape"):
        assert (found == expected).all()
    else:
        assert found == expected


def finished(folder):
    path = fit_online(small("ppo", steps=64), folder)
    path.unlink()
    return next(folder.glob("checkpoint-*")), folder / "run.json"


def test_a_checkpoint_that_does_not_fit_is_one_sentence(tmp_path):
    checkpoint, file = finished(tmp_path)
    state = file.read_text()
    wrong = {
        "run.json is not the state of a run": ["{", "[" * 100_000, "[]", state.replace('"step": 64', '"step": "x"')],
        r"run\.checkpoint: ": [state.replace(checkpoint.name, "../elsewhere"), state.replace(checkpoint.name, "")],
        "is at step 64, and .* at step 65": [state.replace('"step": 64,\n "seconds"', '"step": 65,\n "seconds"')],
        r"run\.seed is missing": [
            json.dumps({key: value for key, value in json.loads(state).items() if key != "seed"})
        ],
    }
    for text, contents in wrong.items():
        for content in contents:
            file.write_text(content)
            with pytest.raises(CheckpointError, match=text) as caught:
                fit_online(small("ppo", steps=64), tmp_path)
            assert "run.json" in str(caught.value)
    file.write_text(state)
    assert fit_online(small("ppo", steps=64), tmp_path).is_file()


def test_tensors_of_another_shape_are_refused_before_they_are_used(tmp_path):
    """An optimizer's moments of a wrong shape would crash the process."""
    checkpoint, _ = finished(tmp_path)
    model = sb3.PPO.load(checkpoint / "model.zip")
    good = (checkpoint / "model.zip").read_bytes()
    moments = model.policy.optimizer.state[model.policy.optimizer.param_groups[0]["params"][0]]
    whole = moments["exp_avg"]
    for value in (torch.zeros(1), torch.zeros(0), whole.int(), whole * float("nan")):
        moments["exp_avg"] = value
        model.save(checkpoint / "model.zip")
        with pytest.raises(CheckpointError, match=r"policy\.optimizer\.pth in .* a moment has another shape"):
            fit_online(small("ppo", steps=64), tmp_path)
    (checkpoint / "model.zip").write_bytes(good)
    assert fit_online(small("ppo", steps=64), tmp_path).is_file()


def test_a_replay_buffer_of_an_earlier_version_is_not_opened(tmp_path):
    recipe = small("sac", steps=160)
    run = OnlineRun(built(recipe), asdict(recipe), 0, tmp_path, measure=None)
    run.save()
    (tmp_path / "checkpoint-0" / "replay.safetensors").unlink()
    (tmp_path / "checkpoint-0" / "replay.pkl").write_bytes(pickle.dumps(Marks(tmp_path / "marker")))
    with pytest.raises(CheckpointError, match="of an earlier version, whose replay buffer is a pickle"):
        fit_online(recipe, tmp_path)
    assert not (tmp_path / "marker").exists()


def test_a_run_goes_on_to_more_steps_while_there_is_what_to_learn_from(tmp_path, monkeypatch):
    fit_online(small("ppo", steps=64), tmp_path / "ppo")
    path = fit_online(small("ppo", steps=64), tmp_path / "ppo", steps=128)
    card = json.loads(path.with_suffix(".json").read_text())
    assert card["steps"] == 128 and card["recipe"]["steps"] == 128 and card["curve"][-1]["step"] == 128
    interrupt_once(monkeypatch, after=4 * 170 + 2 * 300)
    with pytest.raises(TrainingInterrupted):
        fit_online(small("sac", steps=256), tmp_path / "sac")
    fit_online(small("sac", steps=256), tmp_path / "sac", steps=260)
    with pytest.raises(ValueError, match=r"steps is 260 there and 300 here \(a finished run keeps no replay buffer\)"):
        fit_online(small("sac", steps=256), tmp_path / "sac", steps=300)


def test_what_is_not_there_is_named():
    with pytest.raises(ValueError, match="has no algorithm 'Sarsa'"):
        built(OnlineRecipe("mine", "maze2d-umaze-v1", "Sarsa", 10))
    with pytest.raises(ValueError, match=r"PPO refuses the recipe mine: .*tau"):
        built(OnlineRecipe("mine", "maze2d-umaze-v1", "PPO", 10, settings={"tau": 1.0}))
