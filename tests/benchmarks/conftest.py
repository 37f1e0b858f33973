import os
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest

from dfplan.benchmarks import own, play
from dfplan.benchmarks import run as benchmark
from dfplan.worker_processes import Workers

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


class Here(Workers):
    """Stand-in for worker processes: what is called is called in this one, and the files that it reads are noted alone."""

    def ended(self, jobs):
        for name, (function, *arguments) in jobs.items():
            own._opened.clear()
            own._opened.update(OPENED)
            yield name, function(*arguments)
            OPENED.update(own._opened)


OPENED = set()


@pytest.fixture
def here():
    """Workers that are this process."""
    OPENED.clear()
    play.build.cache_clear()
    return Here(1)


@pytest.fixture
def within(here, tmp_path, monkeypatch, capsys):
    """Run the benchmark in an empty folder, all of it within this process, to its exit status, output and errors."""
    monkeypatch.chdir(tmp_path)
    joined = contextmanager(lambda *_, **options: (yield here))
    monkeypatch.setattr(benchmark, "workers", joined)
    monkeypatch.setattr(sys, "path", [*sys.path])  # what a run appends to it is gone with the test

    def call(*arguments):
        OPENED.clear()
        play.build.cache_clear()
        users = str(tmp_path.parent), str(Path(__file__).parent / "stand_in")
        for name, module in [*sys.modules.items()]:
            if str(getattr(module, "__file__", None)).startswith(users):
                monkeypatch.delitem(sys.modules, name)
        monkeypatch.setattr(sys, "argv", ["run.py", *map(str, arguments)])
        status = benchmark.main()
        return status, *capsys.readouterr()

    return call
