"""The experiment that times decisions in the robot tasks with one thread: its verdict by hand, and what is timed."""

import pytest

from dfplan.benchmarks import rows, speed
from dfplan.benchmarks.experiments import decision_time
from dfplan.benchmarks.suites import suite
from dfplan.envs.registry import find

FAST = {"median": 0.5, "p95": 60.0, "mean": 4.0, "plan": 61.0}


@pytest.mark.parametrize("slow, held", [({}, True), ({"median": 5.1}, False), ({"plan": 100.1}, False)])
def test_one_slow_task_is_enough_against_the_claim(slow, held):
    verdict, table = decision_time.conclude({"scene": FAST, "puzzle-3x3": {**FAST, **slow}})
    assert verdict is held and "| scene | 0.50 | 60.00 | 4.00 | 61.00 | 250 |" in table


def test_every_task_of_the_robots_suites_that_has_weights_is_timed():
    row, tasks = rows.row("diffusion-forcing"), [*suite.named("ogbench").tasks, *suite.named("locomotion").tasks]
    assert {name for name in tasks if row.weights_file(find(name), 0)} == set(decision_time.parts(quick=False))


def test_a_task_is_timed_alone_with_one_thread(monkeypatch):
    timed = []
    monkeypatch.setattr(rows.Row, "build", lambda row, task, seed: (row.recipe, task.env_id, seed))
    monkeypatch.setattr(speed, "time_decisions", lambda *a, **k: timed.append((*a, k)) or FAST)
    assert decision_time.play(decision_time.parts(quick=True)["cube-single"]) == FAST
    agent = ("default", find("cube-single").env_id, 0)
    assert timed == [(agent, agent[1], 60, speed.SEED, {"threads": 1})]
