import os
import subprocess
import sys
from pathlib import Path

import pytest

from dfplan.benchmarks import run as benchmark

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def command(tmp_path):
    """Run one of the benchmark's scripts in an empty folder, with the stand-in planner importable."""

    def run(script, *arguments, **variables):
        environment = os.environ | {"PYTHONPATH": str(Path(__file__).parent), "OMP_NUM_THREADS": "1"} | variables
        return subprocess.run(
            [sys.executable, str(ROOT / "benchmarks" / script), *map(str, arguments)],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            timeout=300,
        )

    return run


@pytest.fixture
def begin(tmp_path):
    """Start one of the benchmark's scripts as `command` does, without waiting for its end."""
    started = []

    def run(script, *arguments):
        environment = os.environ | {"PYTHONPATH": str(Path(__file__).parent), "OMP_NUM_THREADS": "1"}
        words = [sys.executable, str(ROOT / "benchmarks" / script), *map(str, arguments)]
        pipe = subprocess.PIPE
        started.append(subprocess.Popen(words, cwd=tmp_path, env=environment, stdout=pipe, stderr=pipe, text=True))
        return started[-1]

    yield run
    for process in started:
        process.kill()
        process.communicate()


@pytest.fixture
def within(tmp_path, monkeypatch, capsys):
    """Run the benchmark in an empty folder, within this process, to its exit status, output and errors."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setattr(sys, "path", [*sys.path])  # what a run appends to it is gone with the test

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["run.py", *map(str, arguments)])
        status = benchmark.main()
        return status, *capsys.readouterr()

    return call
