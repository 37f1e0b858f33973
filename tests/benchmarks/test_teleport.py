"""The experiment on luck in OGBench's maze with teleports."""

from dataclasses import replace

import numpy as np
import pytest

from dfplan.benchmarks import protocol, rows
from dfplan.benchmarks.experiments import teleport
from dfplan.envs.registry import find


def played(tried, cut):
    """Parts of 25 episodes, of which so many have success, and half in the other variants."""
    wanted = {teleport.TRIED: tried, teleport.CUT: cut}
    return {
        name: {
            "success": [episode < wanted.get(name, 12) for episode in range(25)],
            "lengths": list(range(100, 125)),
            "teleports": [1] * 25,
        }
        for name in teleport.parts(quick=False)
    }


@pytest.mark.parametrize(("tried", "cut", "held"), [(5, 20, True), (5, 14, False), (19, 20, False)])
def test_it_holds_where_cut_data_succeed_often_and_more_often_than_the_mean_time(tried, cut, held):
    found, table = teleport.conclude(played(tried, cut))
    assert found is held and f"{4 * cut:.1f} [" in table
    assert table.count("\n| ") == len(teleport.VARIANTS) + 1


def test_of_no_success_there_are_no_steps():
    assert "| - |" in teleport.conclude(played(0, 20))[1]


class Upwards:
    """An agent without a goal that goes up from where task 3 starts, into an entrance."""

    goal_dim = 0

    def with_options(self, **options):
        self.options = options
        return self

    def reset(self, goal=None, seed=None):
        pass

    def act(self, observations):
        return np.stack([np.array([0.2 * (20 - x), -1.0]).clip(-1, 1) for x, _ in observations])


def test_teleports_are_counted_by_episode(monkeypatch):
    pytest.importorskip("ogbench")
    agent = Upwards()
    monkeypatch.setattr(rows.Row, "build", lambda row, task, seed: agent)
    monkeypatch.setattr(protocol, "task", lambda env_id: replace(find(env_id), max_episode_steps=60))
    found = teleport.play(teleport.parts(quick=True)[teleport.SHORTEST])
    assert agent.options == teleport.VARIANTS[teleport.SHORTEST][1]
    assert found["lengths"] == (60,) * 5 and found["success"] == (False,) * 5
    assert found["teleports"][2] >= 1 and found["teleports"][1] == 0  # seeds 100,002 and 100,001: tasks 3 and 2
