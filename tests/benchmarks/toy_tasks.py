"""The toy environments as registered tasks, of a suite of their own: what a new family of tasks needs."""

import sys
from types import SimpleNamespace

import gymnasium
from toy_environments import STEPS, DictGoal, Falls, Plain, WholeGoal

from dfplan.benchmarks.suites.suite import Suite
from dfplan.envs.registry import TASKS, Task

NAMES = {"ToyPlain-v0": Plain, "ToyFalls-v0": Falls, "ToyDict-v0": DictGoal, "ToyWhole-v0": WholeGoal}
SUITE = Suite(tasks=("ToyFalls", "ToyDict", "ToyWhole"))


def register(monkeypatch, suite=SUITE):
    """Until the end of a test."""
    monkeypatch.setitem(sys.modules, "dfplan.benchmarks.suites.toy", SimpleNamespace(SUITE=suite))
    for name, make in NAMES.items():
        if name not in gymnasium.registry:
            gymnasium.register(name, make)
        options = ({"task_id": 1}, {"task_id": 2}) if make is WholeGoal else ()
        goals = make in (DictGoal, WholeGoal)
        monkeypatch.setitem(TASKS, name, Task(name, "toy", name, STEPS, random_goal=goals, options=options))
