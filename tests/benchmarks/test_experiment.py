"""Experiments: a killed one goes on, a finished one is used again, and the page shows what the recorded file holds."""

import json
from functools import partial
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from dfplan.benchmarks import experiment
from dfplan.benchmarks.experiments import (
    asking_for_goals,
    asking_for_returns,
    futures,
    monte_carlo_guidance,
    paper_recipe,
    speed_and_arrival,
    variants,
)
from dfplan.benchmarks.report import figures
from dfplan.benchmarks.report.pages import replaced
from dfplan.data.tokens import TokenLayout
from dfplan.data.trajectories import Trajectories
from dfplan.envs import fork
from dfplan.models import TransformerConfig
from dfplan.planning.model import TrajectoryModel, TrajectoryModelConfig

ROOT = Path(__file__).resolve().parents[2]
RECORDED = sorted((ROOT / "benchmarks" / "recorded" / "experiments").glob("*.json"))


def counting(stop_at=None):
    """An experiment of three parts, whose plays are listed; the part `stop_at` is interrupted."""
    played = []

    def play(settings):
        if settings["number"] == stop_at:
            raise KeyboardInterrupt
        played.append(settings["number"])
        return {"returns": [10.0 * settings["number"]]}

    def conclude(parts):
        return sum(part["returns"][0] for part in parts.values()) == 30, "| table |\n"

    def parts(quick):
        return {f"part {n}": {"number": n} for n in range(1 if quick else 3)}

    return SimpleNamespace(
        CLAIM="They sum to 30.", PAGE="page", parts=parts, play=play, conclude=conclude, played=played
    )


def test_an_interrupted_experiment_goes_on_and_a_finished_one_is_used_again(tmp_path):
    file, stopped, whole = tmp_path / "sum.json", counting(stop_at=2), counting()
    with pytest.raises(KeyboardInterrupt):
        experiment.complete(stopped, file, "command", False)
    assert stopped.played == [0, 1] and not file.exists()
    result = experiment.complete(whole, file, "command", False)
    assert whole.played == [2] and result["held"] is True
    assert [path.name for path in tmp_path.iterdir()] == ["sum.json"]
    assert experiment.complete(whole, file, "another command", False) == result == json.loads(file.read_text())
    assert whole.played == [2]


def test_parts_of_another_commit_or_with_other_settings_are_played_again(tmp_path, monkeypatch):
    file, stopped, again = tmp_path / "sum.json", counting(stop_at=2), counting()
    with pytest.raises(KeyboardInterrupt):
        experiment.complete(stopped, file, "command", False)
    monkeypatch.setattr(experiment.provenance, "commit", lambda: "another")
    experiment.complete(again, file, "command", False)
    assert again.played == [0, 1, 2]
    again.parts = lambda quick: {f"part {n}": {"number": n + (n == 2)} for n in range(3)}
    assert experiment.complete(again, file, "command", False)["held"] is False
    assert again.played == [0, 1, 2, 0, 1, 3]


def test_a_damaged_file_is_named(tmp_path):
    (tmp_path / "sum.json").write_text("[1")
    with pytest.raises(ValueError, match=r"sum\.json is damaged"):
        experiment.complete(counting(), tmp_path / "sum.json", "command", False)


def test_record_is_for_whole_experiments(capsys):
    assert experiment.main(["speed-and-arrival", "--quick", "--record"]) == 2
    assert "expected no --quick" in capsys.readouterr().err


@pytest.mark.parametrize("file", RECORDED, ids=lambda file: file.stem)
def test_a_page_shows_its_recorded_experiment(file):
    """The table and the verdict are those of the file's returns."""
    module = import_module(f"dfplan.benchmarks.experiments.{file.stem.replace('-', '_')}")
    result, page = experiment.read(file), (ROOT / "docs" / f"{module.PAGE}.md").read_text(encoding="utf-8")
    shown = experiment.section(module, result)
    assert replaced(page, shown, file.stem, f"experiment:{file.stem}") == page
    assert result["held"] is ("It held." in shown) and result["claim"] == module.CLAIM
    words = f"python benchmarks/experiment.py {file.stem}"
    assert result["command"] in (words, f"{words} --record"), "a whole experiment, not --quick"
    assert not result["commit"].endswith("+")
    if hasattr(module, "figure"):
        assert figures.digest_of(ROOT / "docs" / f"{file.stem}.png") == experiment.digest(result)


def test_every_variant_is_played_with_its_options_on_the_protocols_episodes(monkeypatch):
    asked = []

    def evaluate(agent, env_id, seeds):
        asked.append((env_id, list(seeds)))
        return SimpleNamespace(returns=(agent.config.speed,))

    monkeypatch.setattr(variants.protocol, "evaluate", evaluate)
    settings = {name: part for name, part in speed_and_arrival.parts(True).items() if "umaze" in name}
    played = [speed_and_arrival.play(part) for part in settings.values()]
    assert [(part["speed"], part["arrival"]) for part in played] == [(1.7, 0.45), (1, 0.45), (1.7, 0), (1, 0)]
    assert [part["returns"] for part in played] == [[1.7], [1], [1.7], [1]]
    assert asked == [("maze2d-umaze-v1", [100_000, 100_001, 100_002, 100_003, 100_004])] * 4


@pytest.mark.slow
def test_speed_changes_the_returns():
    settings = speed_and_arrival.parts(True)["maze2d-umaze, as shipped"] | {"episodes": 1}
    shipped, slower = (speed_and_arrival.play({**settings, "options": options}) for options in ({}, {"speed": 1.0}))
    assert shipped["returns"] != slower["returns"]


def test_the_claim_holds_only_if_each_option_raises_the_score_in_each_maze(monkeypatch):
    monkeypatch.setattr(variants, "mean", partial(variants.mean, resamples=100))
    parts = speed_and_arrival.parts(True)
    played = {
        name: {"returns": [100.0 - 20 * len(part["options"]) + i for i in range(10)]} for name, part in parts.items()
    }
    held, table = speed_and_arrival.conclude(played)
    assert held and table.count("(-") == 9
    played["maze2d-large, arrival=0"]["returns"] = [120.0 + i for i in range(10)]
    assert not speed_and_arrival.conclude(played)[0]


@pytest.mark.parametrize(("tracked", "held"), [(100.0, True), (60.0, False)])
def test_the_papers_recipe_must_win_back_half_of_the_gap_by_tracking(tracked, held):
    parts = paper_recipe.parts(True)
    first, second, *_, default = parts
    returns = dict.fromkeys(parts, 30.0) | {second: tracked, default: 130.0}
    played = {name: {"returns": [returns[name] + i for i in range(5)]} for name in parts}
    assert paper_recipe.conclude(played)[0] is held
    assert parts[first]["options"] != parts[second]["options"] and parts[first]["sha256"] != parts[default]["sha256"]


def steered(share_of_short):
    """The quick experiment as if each variant had steered boats so: `share_of_short(variant, hazard)`."""
    played = {name: {"settings": part} for name, part in monte_carlo_guidance.parts(True).items()}
    for name, part in played.items():
        hazards = part["settings"]["hazards"]
        part["short"] = [[i < 10 * share_of_short(name, hazard) for i in range(10)] for hazard in hazards]
    played["futures"] |= {"true": [0.0, 1.0, 2.0, 5.0], "spread": [0.1, 1.1, 2.0, 4.5]}
    return played


def test_monte_carlo_guidance_must_switch_where_the_optimum_does_and_the_others_not():
    def ideal(name, hazard):
        return hazard < fork.SWITCH if name.startswith("Monte Carlo") else 1

    held, table = monte_carlo_guidance.conclude(steered(ideal))
    assert held and "| Monte Carlo, 64 futures | 100.0% [100.0%, 100.0%] | 100% | 100% | 0% |" in table
    assert "is 90 to 110% of the data's" in table
    assert not monte_carlo_guidance.conclude(steered(lambda name, hazard: hazard < fork.SWITCH))[0], (
        "none must be as good"
    )
    assert not monte_carlo_guidance.conclude(steered(lambda name, hazard: 1))[0], "it must be good"
    collapsed = steered(ideal)
    collapsed["futures"]["spread"] = [0.0] * 4
    assert not monte_carlo_guidance.conclude(collapsed)[0], "futures must be spread"
    assert len(monte_carlo_guidance.figure(steered(ideal)).axes[0].lines) == 8


@pytest.mark.slow
def test_monte_carlo_guidance_is_played_on_fork(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    parts = monte_carlo_guidance.parts(True)
    few = {"training": {"episodes": 20, "seed": 0, "steps": 2}, "hazards": [0.0, 1.0]}
    found = monte_carlo_guidance.play({**parts["Monte Carlo, 4 futures"], **few, "episodes": 3})
    for hazard, returns, short in zip(few["hazards"], found["returns"], found["short"], strict=True):
        arms = ["short" if taken else "long" for taken in short]
        assert returns == pytest.approx([fork.expected_return(arm, hazard) for arm in arms])
    drawn = monte_carlo_guidance.play({**parts["futures"], **few, "draws": 5})
    assert drawn["true"] == [0.0, 8.0] and len(drawn["spread"]) == 2


@pytest.mark.parametrize(
    ("default", "one", "held"), [(0.9, 0.1, True), (0.6, 0.1, False), (1.4, 0.1, False), (0.9, 0.8, False)]
)
def test_futures_must_spread_as_recorded_and_the_mean_must_not(default, one, held):
    parts = futures.parts(True)
    drawn = {str(steps): [2.0 * (one if steps == 1 else default)] * 3 for steps in futures.STEPS}
    part = {"tokens": [6, 12, 23], "recorded": [2.0] * 3, "drawn": drawn}
    found, table = futures.conclude(dict.fromkeys(parts, part))
    assert found is held and table.count("| maze2d-") == 9 and f"| {default:.0%} |" in table


def test_groups_are_of_near_states_and_spread_is_that_of_a_group():
    rng = np.random.default_rng(0)
    side = np.repeat([-5.0, 5.0], 500)[:, None]
    data = Trajectories(
        (side + rng.normal(0, 0.1, (1000, 4))).astype(np.float32),
        np.zeros((1000, 2), np.float32),
        np.zeros(1000, np.float32),
        np.array([0, 500]),
        name="two sides",
    )
    group = futures.groups(data, 6, 4, [10, 30])
    assert group.shape == (6, 4) and group.max() < 970 and not bool(((group > 469) & (group < 500)).any())
    assert bool(((group >= 500) == (group[:, :1] >= 500)).all()), "each group is of one side"
    assert futures.spread(np.array([[[[0.0, 0.0]], [[2.0, 0.0]]], [[[5.0, 5.0]], [[5.0, 7.0]]]])) == [round(2**0.5, 4)]


@pytest.mark.parametrize("levels", [True, False])
def test_a_future_begins_with_its_state(levels):
    config = TrajectoryModelConfig(
        TokenLayout(4, 2, stride=2),
        goal_columns=(0, 1),
        tokens=3,
        parts=levels,
        levels=8,
        model=TransformerConfig(width=16, depth=1, heads=2),
        plausibility=None,
        inverse=False,
    )
    states = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    drawn = futures.futures(TrajectoryModel(config), states, 2)
    assert drawn.shape == (2, 3, 3, 4) and np.allclose(drawn[:, :, 0], states)


def asked(chunks_in_cube, plans_in_maze):
    """Parts of `asking-for-goals` with 50 scores each, of which the expected recipe has these means and the others 40."""
    scores = {"cube-single, chunks": chunks_in_cube, "maze2d-large, plans": plans_in_maze}
    wiggle = [1.0 if episode % 2 else -1.0 for episode in range(50)]
    return {
        name: {
            "settings": settings,
            "unit": "success %",
            "data": 200_200,
            "scores": [scores.get(name, 40.0) + w for w in wiggle],
        }
        for name, settings in asking_for_goals.parts(quick=False).items()
    }


@pytest.mark.parametrize(("chunks", "plans", "held"), [(90.0, 90.0, True), (90.0, 40.1, False), (10.0, 90.0, False)])
def test_each_way_of_asking_must_win_where_it_is_expected_to(chunks, plans, held):
    found, table = asking_for_goals.conclude(asked(chunks, plans))
    assert found is held and table.count("\n| ") == 3 and "200,200 recorded steps" in table


def test_the_ways_of_asking_are_the_recipes_that_everybody_has():
    from dfplan.agents.recipes import RECIPES

    assert asking_for_goals.RECIPES.keys() == RECIPES.keys()
    assert len(asking_for_goals.parts(quick=True)) == 4


@pytest.mark.parametrize(("asked", "guided", "cloning", "held"), [(9, 6, 5, True), (9, 3, 5, False), (4, 6, 5, False)])
def test_asking_for_returns_held_where_asking_and_guidance_gain(asked, guided, cloning, held):
    ways = asking_for_returns
    means = {
        ways.ASKED: asked,
        ways.ASKED + ways.CALM: asked,
        ways.GUIDED: guided,
        ways.CLONING: cloning,
    }
    starts = np.arange(20) % 5
    played = {
        name: {
            "returns": (starts + 100 * means.get(name, 3) + len(name) % 3 * (starts > 2)).tolist(),
            "lengths": [7] * 20,
        }
        for name in asking_for_returns.parts(quick=False)
    }
    found, table = asking_for_returns.conclude(played)
    assert found is held and table.count("\n| ") == len(played) + 1
