import os
import signal
import subprocess
import sys

import pytest

from dfplan.locks import InUseError, hold

HOLDER = (
    "import sys; from dfplan.locks import hold\n"
    "with hold(sys.argv[1], 'holding', wait=len(sys.argv) > 2):\n"
    "    print('held', flush=True); sys.stdin.readline()\n"
)


def holder(path, *options):
    return subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(path), *options],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_a_second_process_is_refused_and_told_who_holds_the_lock(tmp_path):
    first = holder(tmp_path / "lock")
    assert first.stdout.readline() == "held\n"
    with (
        pytest.raises(InUseError, match=rf"lock is locked by process {first.pid} on .*, holding"),
        hold(tmp_path / "lock", "testing"),
    ):
        pytest.fail("two held the lock")
    first.communicate("\n")
    with hold(tmp_path / "lock", "testing"):
        assert (tmp_path / "lock").read_text().startswith(f"process {os.getpid()} on ")
    assert os.listdir(tmp_path) == []


def test_a_waiting_process_says_for_whom_and_goes_on(tmp_path):
    first = holder(tmp_path / "lock")
    assert first.stdout.readline() == "held\n"
    second = holder(tmp_path / "lock", "wait")
    assert second.stderr.readline().startswith(f"waiting for process {first.pid} on ")
    first.communicate("\n")
    assert second.stdout.readline() == "held\n"
    second.communicate("\n")
    assert second.returncode == 0 and os.listdir(tmp_path) == []


def test_the_lock_of_a_killed_process_is_free(tmp_path):
    first = holder(tmp_path / "lock")
    assert first.stdout.readline() == "held\n"
    first.send_signal(signal.SIGKILL)
    first.communicate()
    with hold(tmp_path / "lock", "testing"):
        pass
    assert os.listdir(tmp_path) == []


def test_the_lock_is_free_after_an_error(tmp_path):
    for _ in range(2):
        with pytest.raises(ZeroDivisionError), hold(tmp_path / "lock", "testing"):
            _ = 1 / 0
    assert os.listdir(tmp_path) == []
