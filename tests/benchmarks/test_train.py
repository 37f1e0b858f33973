"""The command that trains: what it leaves, what it continues, and what it refuses before any work."""

import os
import runpy
import shlex
import signal
import sys
import tempfile
from dataclasses import replace
from functools import partial
from statistics import fmean

import h5py
import numpy as np
import pytest
import torch
import toy_tasks

from dfplan.agents.agent_config import AgentConfig
from dfplan.agents.diffusion_forcing import DiffusionForcingAgent
from dfplan.agents.offline.base import ActingConfig
from dfplan.agents.offline.bc import BCConfig, BehaviorCloningAgent
from dfplan.benchmarks import scores, train
from dfplan.benchmarks.protocol import TUNING_SEEDS
from dfplan.benchmarks.recipes.online import ONLINE
from dfplan.benchmarks.recipes.recipe import RECIPES
from dfplan.benchmarks.suites import maze2d, suite
from dfplan.config_json import config_to_json
from dfplan.data.tokens import TokenLayout
from dfplan.data.transitions import Replay
from dfplan.data.windows import Windows
from dfplan.envs.collect import collect
from dfplan.locks import hold
from dfplan.models import TransformerConfig
from dfplan.planning.model import TrajectoryModel, TrajectoryModelConfig
from dfplan.planning.plan_config import PlanConfig
from dfplan.training.checkpoint import load_checkpoint, load_header
from dfplan.training.config import TrainConfig
from dfplan.training.fit import Recipe
from dfplan.training.log import read_records

CONFIG = TrainConfig(steps=12, batch_size=4, warmup_steps=2, checkpoint_every=4, log_every=4, precision="32-true")
MODEL = TrajectoryModelConfig(
    TokenLayout(4, 2, stride=8), (0, 1), tokens=4, model=TransformerConfig(width=8, depth=1, heads=2), levels=8
)
AGENT = AgentConfig(PlanConfig(steps=1, horizons=1), replan_every=100)


STACKED = BCConfig(4, 2, hidden=(8, 8), seeds=(0, 1))


def windows(data):
    return Windows(data, MODEL.layout.steps(MODEL.tokens)).sample


def tiny_default(spec, budget):
    return Recipe(DiffusionForcingAgent, TrajectoryModel, MODEL, AGENT, CONFIG, windows)


def tiny_bc(spec, budget):
    batches = partial(Replay, seeds=STACKED.seeds)
    return Recipe(
        BehaviorCloningAgent, BehaviorCloningAgent.learner_class, STACKED, ActingConfig(), CONFIG, batches, curve=3
    )


@pytest.fixture(autouse=True)
def tiny(tmp_path, monkeypatch):
    """Small recipes, two episodes a score, an empty working folder, and a folder for temporary files."""
    monkeypatch.setitem(RECIPES, "default", tiny_default)
    monkeypatch.setitem(RECIPES, "bc", tiny_bc)
    for seeds in ("SCORE_SEEDS", "CURVE_SEEDS"):
        monkeypatch.setattr(scores, seeds, TUNING_SEEDS[:2])
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "datasets"))
    for name in ("here", "temporary"):
        (tmp_path / name).mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    monkeypatch.chdir(tmp_path / "here")
    yield
    assert list((tmp_path / "temporary").iterdir()) == []


@pytest.fixture
def data(tmp_path):
    return drive(tmp_path / "a drive.hdf5", 4)


def drive(path, columns):
    """A D4RL file: a particle that bounces around, rewarded near one corner."""
    rng = np.random.default_rng(0)
    actions = rng.uniform(-1, 1, (400, 2)).astype(np.float32)
    position = np.abs(np.cumsum(0.1 * actions, axis=0) % 4 - 2) + 1
    observations = np.tile(position, 3)[:, :columns]
    with h5py.File(path, "w") as file:
        file["observations"], file["actions"] = observations.astype(np.float32), actions
        file["rewards"] = (np.linalg.norm(position - 1, axis=1) < 0.5).astype(np.float32)
        file["terminals"] = np.zeros(400, dtype=bool)
    return path


def run(*words):
    return train.main(["--env", "maze2d-umaze", "--quiet", *map(str, words)])


def files(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_a_run_leaves_weights_with_a_card_and_nothing_besides(tmp_path, data):
    assert run("--data", data, "--seed", 3) == 0
    folder = tmp_path / "here" / "runs" / "maze2d-umaze-seed3"
    events = f"tensorboard/{next((folder / 'tensorboard').iterdir()).name}"
    expected = [".dfplan-run", "last.safetensors", "log.jsonl", events, "weights.safetensors"]
    assert files(tmp_path / "here") == [f"runs/maze2d-umaze-seed3/{name}" for name in expected]
    agent = DiffusionForcingAgent.load(folder / "weights.safetensors")
    card = agent.card
    assert (card["name"], card["seed"], card["seeds"], card["steps"]) == ("maze2d-umaze-seed3", 3, [3], 12)
    words = shlex.split(card["command"])
    assert words[:2] == ["python", "benchmarks/train.py"] and words[2:] == [
        *("--env", "maze2d-umaze", "--seed", "3", "--data", str(data))
    ], "what does not decide about the weights is not in it"
    assert card["data"]["steps"] == 400 and len(card["data"]["fingerprint"]) == 64
    assert card["hardware"]["threads"] == 1 and card["training_seconds"] > 0 and card["curve"] == []
    assert card["metrics"]["loss"] == read_records(folder / "log.jsonl")[-1]["loss"]
    assert load_header(folder / "weights.safetensors")["agent"] == config_to_json(AGENT) and agent.config == AGENT
    assert card["score"] == scores.score([agent], "maze2d-umaze-v1") and len(card["score"]["returns"]) == 2
    averaged, _ = load_checkpoint(folder / "last.safetensors")
    network = agent.model.state_dict()
    changed = [
        name for name in network if f"ema/{name}" in averaged and not same(network[name], averaged[f"ema/{name}"])
    ]
    assert changed == []


def same(loaded, trained):
    """Files of weights may be rounded to half precision."""
    return torch.equal(loaded, trained) or torch.equal(loaded, trained.half().float())


def test_stacked_seeds_are_scored_one_by_one(tmp_path, data):
    assert run("--recipe", "bc", "--data", data) == 0
    path = tmp_path / "here" / "runs" / "maze2d-umaze-bc-seed0" / "weights.safetensors"
    agents = [BehaviorCloningAgent.load(path, member) for member in (0, 1)]
    card = agents[0].card
    assert card["seeds"] == [0, 1]
    assert card["score"]["each"] == [scores.score([agent], "maze2d-umaze-v1") for agent in agents]
    assert card["score"]["normalized"] == round(fmean(one["normalized"] for one in card["score"]["each"]), 1)
    assert [point["step"] for point in card["curve"]] == [4, 8, 12]
    assert card["curve"][-1]["normalized"] == card["score"]["normalized"], "the last point is of the last weights"


def test_the_mazes_own_data_is_collected(tmp_path, monkeypatch, capsys):
    asked = []

    def few(env):
        asked.append(env)
        return collect(env, steps=600, workers=1, dataset_id="dfplan/few-v1", quiet=True)

    monkeypatch.setattr(suite, "own_data", few)
    assert train.main(["--env", "multi2d-umaze"]) == 0
    assert asked == ["maze2d-umaze-v1"], "one set of data serves all tasks of a maze"
    said = capsys.readouterr().out
    assert "dfplan/few-v1: 600 steps, ready after" in said
    assert f"weights written to {os.path.join('runs', 'maze2d-umaze-seed0', 'weights.safetensors')}" in said


def interrupting(data):
    """Windows, and Ctrl-C while the seventh batch is drawn."""
    source, count = windows(data), iter(range(1, 1000))

    def batch(rng, size):
        if next(count) == 7:
            os.kill(os.getpid(), signal.SIGINT)
        return source(rng, size)

    return batch


def test_after_ctrl_c_the_same_command_goes_on_to_the_same_weights(tmp_path, data, monkeypatch, capsys):
    assert run("--data", data, "--run-dir", "whole") == 0
    with monkeypatch.context() as patch:
        patch.setitem(RECIPES, "default", lambda *given: replace(tiny_default(*given), batches=interrupting))
        with pytest.raises(SystemExit) as caught:
            run("--data", data, "--run-dir", "cut")
    assert caught.value.code == 130 and "interrupted after step 7 of 12" in capsys.readouterr().err
    assert not (tmp_path / "here" / "cut" / "weights.safetensors").exists()
    assert run("--data", data, "--run-dir", "cut") == 0
    whole, cut = (load_checkpoint(tmp_path / "here" / name / "weights.safetensors") for name in ("whole", "cut"))
    assert whole[0].keys() == cut[0].keys() and all(torch.equal(whole[0][name], cut[0][name]) for name in whole[0])
    assert whole[1]["card"]["score"] == cut[1]["card"]["score"]


def test_what_was_killed_while_it_was_scored_is_scored_and_not_trained_again(tmp_path, data, monkeypatch):
    def killed(*_):
        raise SystemExit(137)

    with monkeypatch.context() as patch:
        patch.setattr(scores, "score", killed)
        with pytest.raises(SystemExit):
            run("--data", data, "--run-dir", "run")
    folder = tmp_path / "here" / "run"
    trained = (folder / "last.safetensors").read_bytes()
    assert "weights.safetensors" not in files(folder)
    assert run("--data", data, "--run-dir", "run") == 0
    assert (folder / "last.safetensors").read_bytes() == trained
    assert "normalized" in load_header(folder / "weights.safetensors")["card"]["score"]


def test_all_stands_for_every_maze_and_recipe():
    arguments = train.Arguments(env="all", recipe="all")
    assert {(one.env, one.recipe) for one in train.each(arguments)} == {
        (f"maze2d-{maze}", name) for maze in maze2d.BUDGETS for name in (*RECIPES, *ONLINE)
    }
    elsewhere = {one.recipe for one in train.each(train.Arguments(env="cube-single", recipe="all"))}
    assert {*RECIPES, *ONLINE} - elsewhere == {"distilled", "dynamics"}, "their rows are made for the mazes"


def test_any_data_is_trained_on_without_an_environment(tmp_path, data):
    assert train.main(["--data", str(data), "--quiet"]) == 0
    agent = DiffusionForcingAgent.load(tmp_path / "here" / "runs" / "a-drive-seed0" / "weights.safetensors")
    assert "score" not in agent.card and agent.card["name"] == "a-drive"
    assert shlex.split(agent.card["command"]) == [*("python", "benchmarks/train.py", "--data", str(data))]


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("/a/b c.npz", "b-c"),
        ("mujoco/hopper/medium-v0", "mujoco-hopper-medium-v0"),
        ("d4rl:hopper-v2", "d4rl-hopper-v2"),
    ],
)
def test_runs_are_named_after_their_data(source, name):
    assert train.name_of(source) == name


def test_a_task_of_a_new_suite_is_trained_for_and_scored(tmp_path, data, monkeypatch):
    toy_tasks.register(monkeypatch)
    assert train.main(["--env", "ToyFalls", "--data", str(data), "--quiet"]) == 0
    agent = DiffusionForcingAgent.load(tmp_path / "here" / "runs" / "ToyFalls-seed0" / "weights.safetensors")
    score = agent.card["score"]
    assert score["env"] == "ToyFalls-v0" and score["success"] is None
    assert score["return"] == round(fmean(score["returns"]), 1) and len(score["returns"]) == 2


def test_all_of_a_suite_are_those_of_its_tasks_that_have_data(monkeypatch):
    toy_tasks.register(monkeypatch)
    assert [one.env for one in train.each(train.Arguments(env="toy"))] == ["ToyFalls", "ToyDict", "ToyWhole"]


def refused(capsys, *words):
    """What the command says on stderr: one short line, and exit status 2."""
    capsys.readouterr()
    assert train.main(list(map(str, words))) == 2
    said = capsys.readouterr()
    assert said.out == "" and said.err.count("\n") == 1 and said.err.endswith("\n") and len(said.err) <= 301
    assert said.err.startswith("error: ")
    return said.err


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("--env maze2d-lrge", "did you mean maze2d-large"),
        ("--env maze2d-umaze-v7", "unknown environment"),
        ("--env=", "unknown environment ''"),
        ("--env maze2d-open", "no recipe for the maze 'open'"),
        ("--env maze2d-custom-v1", "unknown environment"),
        ("--recipe defaul", "did you mean default"),
        ("--recipe=", "unknown recipe"),
        ("--env all --run-dir here", "cannot share one --run-dir"),
        ("--steps 0", "--steps must be at least 1, not 0"),
        ("--seed -1", "--seed must lie in 0..2147483647, not -1"),
        ("--seed 99999999999999999999", "--seed must lie in 0..2147483647"),
        ("--env maze2d-umaze --recipe bc --seed 1", "trains the seeds 0 to 1 in one run"),
        ("--threads 0", "--threads must be at least 1, not 0"),
        ("--devices 0", "--devices must be at least 1, not 0"),
        ("--recipe sac --devices 2", "trains on one device, not on 2"),
        ("--accelerator cuda --devices 99", "99 CUDA devices are asked for"),
        ("--recipe sac --data x.hdf5", "takes no --data"),
        ("--data nowhere/x-v0", "hub"),
        ("--data d4rl:maze2d-large-v1", "d4rl"),
        ("--data d4rl:", "d4rl"),
        ("--data nowhere.hdf5", "no file 'nowhere.hdf5'"),
        ("--data=", "''"),
        ("--data dfplan/maze2d-umaze", "dfplan/maze2d-umaze"),
        ("--run-dir /dev/null", "/dev/null: Not a directory"),
    ],
)
def test_what_cannot_be_trained_is_one_sentence_and_nothing_is_written(tmp_path, monkeypatch, capsys, words, sentence):
    for package in ("huggingface_hub", "d4rl"):
        monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.setattr(suite, "own_data", lambda env: pytest.fail("data is collected before the refusal"))
    assert sentence in refused(capsys, *words.split())
    assert files(tmp_path) == []


@pytest.mark.parametrize(
    "words", ["--accelerator tpu", "--steps 2.5", "--seed x", "--devices", "--nonsense 3", "--threads 1.0"]
)
def test_what_cannot_be_parsed_writes_nothing(tmp_path, capsys, words):
    with pytest.raises(SystemExit) as caught:
        train.main(words.split())
    assert caught.value.code == 2 and words.split()[0] in capsys.readouterr().err
    assert files(tmp_path) == []


def test_without_stable_baselines3_an_online_recipe_is_one_sentence(tmp_path, monkeypatch, capsys):
    from dfplan.agents import online

    monkeypatch.delitem(sys.modules, "dfplan.agents.online.trainer", raising=False)
    monkeypatch.delattr(online, "trainer", raising=False)  # where an earlier test imported it
    monkeypatch.setitem(sys.modules, "stable_baselines3", None)
    assert "stable_baselines3" in refused(capsys, "--env", "maze2d-umaze", "--recipe", "ppo")
    assert files(tmp_path) == []


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.parametrize("recipe", ["default", "sac"])
def test_a_gpu_that_is_not_there_is_one_sentence(tmp_path, capsys, recipe):
    said = refused(capsys, "--recipe", recipe, "--accelerator", "cuda")
    assert "--accelerator cuda: 1 CUDA devices are asked for, and torch finds none here" in said
    assert files(tmp_path) == []


@pytest.mark.parametrize("recipe", sorted(RECIPES))
def test_data_of_other_widths_are_refused_by_every_recipe(tmp_path, capsys, recipe):
    path = drive(tmp_path / "six.hdf5", 6)
    said = refused(capsys, "--env", "maze2d-umaze", "--recipe", recipe, "--data", path, "--quiet")
    assert "six.hdf5 has 6 observation and 2 action columns, but the recipe is for 4 and 2" in said
    assert files(tmp_path) == ["six.hdf5"]


def test_the_folder_is_looked_at_before_the_data(tmp_path, data, monkeypatch, capsys):
    assert run("--data", data, "--run-dir", "run") == 0
    before = {name: (tmp_path / "here" / name).read_bytes() for name in files(tmp_path / "here")}
    mine = tmp_path / "here" / "mine" / "weights.safetensors"
    mine.parent.mkdir()
    mine.write_text("mine")
    monkeypatch.setattr(suite, "data_of", lambda *_: pytest.fail("the data is read before the refusal"))
    ask = ["--env", "maze2d-umaze", "--data", str(data), "--run-dir"]
    said = refused(capsys, *ask, "run", "--steps", "13")
    assert (
        "config.steps is 12 there and 13 here (a cosine learning rate ends at a step that is set at the start)" in said
    )
    assert "config.seed is 0 there and 1 here" in refused(capsys, *ask, "run", "--seed", "1")
    assert "run holds another run" in refused(capsys, *ask, "run", "--recipe", "bc")
    assert "run holds another run, an offline one" in refused(capsys, *ask[:2], "--run-dir", "run", "--recipe", "ppo")
    for recipe in ("default", "bc"):
        assert "mine holds files, but no run of dfplan" in refused(capsys, *ask, "mine", "--recipe", recipe)
    with hold(tmp_path / "here" / "run" / ".dfplan-lock", "training"):
        assert f"locked by process {os.getpid()}" in refused(capsys, *ask, "run")
    assert mine.read_text() == "mine" and len(files(mine.parent)) == 1
    assert before == {name: (tmp_path / "here" / name).read_bytes() for name in before}


def test_the_script_refuses_as_the_function_does(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["train.py", "--threads", "0"])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(train.__file__, run_name="__main__")
    said = capsys.readouterr()
    assert ended.value.code == 2 and said.err.startswith("error: --threads must be at least 1")
    assert said.out == "" and files(tmp_path) == []
