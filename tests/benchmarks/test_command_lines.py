"""What the commands say to what they cannot use: exit status 2, one sentence, nothing written."""

import errno
import io
import os
import sys
from pathlib import Path

import pytest

from dfplan.benchmarks import plan_speed
from dfplan.benchmarks.report import __main__ as report
from dfplan.command import LONGEST

OWN = {
    "batches.py": "class Agent:\n    def reset(self, goal=None, seed=None): ...\n    def act(self, x): return x[:, :2] * 0\n",
    "singles.py": "class Agent:\n    def reset(self, goal=None, seed=None): ...\n    def act(self, x): return x[:2] * 0\n",
    "nan.py": "class Agent:\n    def reset(self, goal=None, seed=None): ...\n"
    "    def act(self, x): return x[..., :2] * float('nan')\n",
    "torn.py": "class Agent:\n    def reset(self\n",
    "helped.py": "import torn\nclass Agent: ...\n",
    "binary.py": "x = 1\0",
    "ends.py": "raise SystemExit('good bye')",
    "card.py": "class Agent:\n    card = [1]\n    def reset(self, goal=None, seed=None): ...\n"
    "    def act(self, x): return x[..., :2] * 0\n",
    "long.py": "raise RuntimeError('x' * 5000)",
}
RUN = [
    ("--env maze2d-lrge", "did you mean maze2d-large"),
    ("--env maze2d-umaze-v7", "unknown environment 'maze2d-umaze-v7'"),
    ("--env maze2d-umaze-", "unknown environment"),
    ("--env", "not none"),
    ("--agents", "not none"),
    ("--env maze2d-custom-v1", "unknown environment"),
    ("--env maze2d-open --agents diffusion-forcing", "'open'"),
    ("--env maze2d-eval-large --agents diffusion-forcing", "'eval-large'"),
    ("--env multi2d-large --agents bc", "bc is left out on multi2d-large-v1: it is not told the goal"),
    ("--env multi2d-large multi2d-umaze --agents bc iql", "(and 3 more)"),
    ("--agents exprt", "unknown agent 'exprt'"),
    ("--agents all expert", "unknown agent 'all'"),
    ("--agents expert --episodes 0", "number of episodes"),
    ("--agents expert --episodes 10001", "number of episodes"),
    ("--agents expert --seed -1", "seed must lie in"),
    ("--agents expert --seed 90", "seed must lie in"),
    ("--agents expert --threads 0", "threads must be at least 1"),
    ("--agents diffusion-forcing --training-seeds 7", "training seeds are one or more of 0, 1, 2, not 7"),
    ("--agents diffusion-forcing --training-seeds", "not none"),
    ("--agents expert --device abacus", "the device 'abacus'"),
    ("--agents expert --device meta", "the device 'meta' is none that agents compute on: expected cpu or cuda"),
    ("--agents expert --device cuda:99", "the device 'cuda:99' cannot be used here"),
    ("--agents expert --output /dev/null", "Not a directory"),
    ("--agents no_such_module:make", "cannot import the agent"),
    ("--agents :", "cannot import the agent"),
    ("--agents stand_in_planner:nothing", "has no attribute 'nothing'"),
    ("--agents stand_in_faults:Failing --episodes 1", "failed on maze2d-large-v1 with one observation (4,): KeyError"),
    ("--agents sb3:nowhere.zip", "there is no file 'nowhere.zip'"),
    ("--agents batches:Agent", "'batches:Agent' failed on maze2d-large-v1 with one observation (4,): IndexError"),
    (
        "--agents singles:Agent",
        "answers a batch of 2 observations (2, 4) with actions (2, 4); expected finite actions of the shape (2, 2)",
    ),
    ("--agents nan:Agent", "answers one observation (4,) with NaN or infinity"),
    ("--agents torn:Agent", "SyntaxError: '(' was never closed (torn.py, line 2)"),
    ("--agents helped:Agent", "SyntaxError: '(' was never closed (torn.py, line 2)"),
    ("--agents binary:Agent", "source code string cannot contain null bytes"),
    ("--agents ends:Agent", "cannot import the agent 'ends:Agent': SystemExit: good bye"),
    ("--agents card:Agent", "'card' of the agent 'card:Agent' is a list"),
    ("--agents long:Agent", "RuntimeError: xxx"),
]
PLAN_SPEED = [
    ("--agents expert --plans 1", "does not plan"),
    ("--plans 0", "plans must lie in 1..999"),
    ("--plans 1000", "plans must lie in 1..999"),
    ("--threads 0", "threads must be one or more numbers of at least 1"),
    ("--threads", "threads must be one or more"),
    ("--agents", "expected one or more agents"),
    ("--env maze2d-umaze-v7", "unknown environment"),
    ("--device cuda:99", "the device 'cuda:99' cannot be used here"),
    ("--agents stand_in_planner:nothing --plans 1", "has no attribute 'nothing'"),
    ("--env maze2d-open", "'open'"),
]
REPORT = [("--root nowhere", "there is no recorded result"), ("--check", "there is no recorded result")]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A working folder that holds somebody's agents."""
    for name, text in OWN.items():
        (tmp_path / name).write_text(text)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def refused(status, errors, sentence, folder):
    assert status == 2, errors
    assert errors.startswith("error: ") and errors.count("\n") == 1 and len(errors) <= LONGEST + 1
    assert sentence in errors
    assert {path.name for path in folder.iterdir()} - {"__pycache__"} == OWN.keys()


@pytest.mark.parametrize(("line", "sentence"), RUN, ids=[line for line, _ in RUN])
def test_run_refuses(folder, within, line, sentence):
    status, _, errors = within(*line.split())
    refused(status, errors, sentence, folder)


OTHERS = [(program, *case) for program, cases in ((plan_speed, PLAN_SPEED), (report, REPORT)) for case in cases]


@pytest.mark.parametrize(
    ("program", "line", "sentence"),
    OTHERS,
    ids=[f"{program.__name__.split('.')[-1]} {line}" for program, line, _ in OTHERS],
)
def test_the_other_commands_refuse(folder, program, line, sentence, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [program.__name__, *line.split()])
    monkeypatch.setattr(sys, "path", [*sys.path])
    status = program.main()
    refused(status, capsys.readouterr().err, sentence, folder)


def test_a_full_disk_is_one_sentence_and_leaves_nothing_half_written(within, tmp_path, monkeypatch):
    def full(handle):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        status, _, errors = within("--env", "maze2d-umaze", "--agents", "random", "--episodes", 1, "--output", "out")
    assert status == 2 and "No space left on device" in errors and errors.count("\n") == 1
    assert [path for path in Path("out").rglob("*") if path.is_file()] == []


def test_a_terminal_without_the_characters_of_the_table_costs_nothing(within, monkeypatch, tmp_path):
    """The dagger and the lines of the table are outside ASCII."""
    terminal = io.TextIOWrapper(io.BytesIO(), encoding="ascii", write_through=True)
    monkeypatch.setattr(sys, "stdout", terminal)
    status, _, errors = within("--env", "maze2d-umaze", "--agents", "random", "--episodes", 1, "--quick")
    assert status == 0, errors
    shown = terminal.buffer.getvalue()
    assert b"random" in shown and b"1 ?" in shown and b"results are in results" in shown
    assert "†" in (tmp_path / "results" / "maze2d-umaze" / "table.md").read_text(encoding="utf-8")
