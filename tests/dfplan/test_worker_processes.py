"""Workers leave Ctrl-C to the process that they work for, and none outlives it."""

import os
import signal
import subprocess
import sys
import time
import warnings

import pytest
from joblib import delayed

from dfplan.worker_processes import Workers, WorkersDiedError, as_they_end, worker_processes

PROGRAM = """
import os, sys, time
from pathlib import Path
from joblib import delayed
from dfplan.worker_processes import as_they_end, worker_processes

def work(folder):
    Path(folder, str(os.getpid())).touch()
    time.sleep(600)

if __name__ == "__main__":
    try:
        with worker_processes():
            list(as_they_end((delayed(work)(sys.argv[1]) for _ in range(2)), 2))
    except KeyboardInterrupt:
        sys.exit(130)
"""


def test_they_are_other_processes_with_the_threads_that_are_asked_for():
    with worker_processes(threads=3):
        calls = (delayed(lambda: (os.getpid(), os.environ["OMP_NUM_THREADS"]))() for _ in range(4))
        found = list(as_they_end(calls, 2))
    assert os.getpid() not in {pid for pid, _ in found} and {threads for _, threads in found} == {"3"}
    assert not any(alive(pid) for pid, _ in found)


def test_ctrl_c_is_kept_from_them_while_they_import_and_not_from_this_process():
    with worker_processes():
        call = delayed(lambda: signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, ()))
        assert list(as_they_end((call() for _ in range(2)), 2)) == [True, True]
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, ())


def test_calls_that_are_left_are_not_spoken_of():
    """As after Ctrl-C between two values: one call has ended, the other is under way when its value is given up."""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        with worker_processes():
            values = as_they_end((delayed(time.sleep)(seconds) for seconds in (0, 600)), 2)
            assert next(values) is None
            values.close()
    assert [str(one.message) for one in said] == []


def work(path, kills):
    """Note that it was begun; of the jobs that kill, each kills its process so many times."""
    with open(path, "a") as file:
        file.write("begun\n")
    if path.read_text().count("begun") <= kills:
        os.kill(os.getpid(), signal.SIGKILL)
    return path.name


def begun(folder):
    return {path.name: path.read_text().count("begun") for path in folder.iterdir()}


@pytest.mark.parametrize("count", [1, 2])
def test_a_process_that_dies_is_replaced_and_what_it_was_doing_is_done_again(tmp_path, count):
    with worker_processes():
        jobs = {name: (work, tmp_path / name, 2 * (name == "b")) for name in "abc"}
        assert sorted(Workers(count).ended(jobs)) == [("a", "a"), ("b", "b"), ("c", "c")]
    assert begun(tmp_path)["b"] == 3
    if count == 1:  # with two, the one beside it may have been under way
        assert begun(tmp_path) == {"a": 1, "b": 3, "c": 1}


def test_a_job_that_kills_every_process_is_given_up_and_the_values_before_it_are_kept(tmp_path):
    values = []
    with (
        worker_processes(),
        pytest.raises(WorkersDiedError, match=r"3 worker processes died of b \(not enough memory\?\)"),
    ):
        for _, value in Workers(1).ended({name: (work, tmp_path / name, 9 * (name == "b")) for name in "ab"}):
            values.append(value)
    assert values == ["a"] and begun(tmp_path) == {"a": 1, "b": 3}


def alive(pid):
    """Whether a process runs; one that has ended and is not yet waited for does not."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.skipif(not os.path.exists("/proc"), reason="looks for processes in /proc")
@pytest.mark.parametrize("blow", [signal.SIGKILL, signal.SIGINT])
def test_they_end_with_the_process_that_they_work_for(tmp_path, blow):
    (tmp_path / "program.py").write_text(PROGRAM)
    (tmp_path / "pids").mkdir()
    process = subprocess.Popen(
        [sys.executable, tmp_path / "program.py", tmp_path / "pids"],
        stderr=subprocess.PIPE,
        text=True,
        process_group=0,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    wait_until(lambda: len(list((tmp_path / "pids").iterdir())) == 2 or process.poll() is not None)
    pids = [int(path.name) for path in (tmp_path / "pids").iterdir()]
    assert len(pids) == 2 and all(map(alive, pids))
    if blow == signal.SIGINT:
        os.killpg(process.pid, blow)  # as a terminal does
    else:
        process.kill()
    errors = process.communicate()[1]
    assert process.returncode == (130 if blow == signal.SIGINT else -signal.SIGKILL)
    assert "Traceback" not in errors
    wait_until(lambda: not any(map(alive, pids)))


def wait_until(true, seconds=60):
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.02)
