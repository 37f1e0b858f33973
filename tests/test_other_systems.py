"""What only POSIX has is used nowhere without a way around: Windows lacks these modules and parts of `os` and `signal`."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MODULES = {"crypt", "fcntl", "grp", "posix", "pty", "pwd", "resource", "syslog", "termios", "tty"}
PARTS = {
    "os": {
        *("chown", "chroot", "ctermid", "fchdir", "fchmod", "fork", "forkpty", "getgid", "getegid", "getloadavg", "getpgid"),
        *("getpgrp", "getpriority", "getsid", "geteuid", "getuid", "initgroups", "killpg", "lockf", "mkfifo", "mknod", "nice"),
        *("openpty", "pread", "pwrite", "posix_fallocate", "sched_getaffinity", "sched_setaffinity", "sendfile", "setgid"),
        *("setpgid", "setpriority", "setsid", "setuid", "statvfs", "sync", "uname", "wait", "wait3", "wait4", "O_NONBLOCK"),
    },
    "signal": {"SIGALRM", "SIGCHLD", "SIGHUP", "SIGKILL", "SIGPIPE", "SIGQUIT", "SIGUSR1", "SIGUSR2", "alarm", "pause"},
}  # fmt: skip


def found(source):
    """Lines of a source that need POSIX: modules imported outside of `try`, and parts that no `hasattr` or `getattr` guards."""
    tree, lines = ast.parse(source), []
    tried = {id(part) for node in ast.walk(tree) if isinstance(node, ast.Try) for part in ast.walk(node)}
    for node in ast.walk(tree):
        names = [one.name for one in node.names] if isinstance(node, ast.Import) else []
        names += [node.module] if isinstance(node, ast.ImportFrom) else []
        if MODULES & set(names) and id(node) not in tried:
            lines.append(node.lineno)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            guard = f'attr({node.value.id}, "{node.attr}"'  # hasattr or getattr
            if node.attr in PARTS.get(node.value.id, ()) and guard not in source:
                lines.append(node.lineno)
    return lines


@pytest.mark.parametrize("room", ["dfplan", "envs", "agents", "benchmarks"])
def test_a_room_needs_no_posix(room):
    files = [path for path in (ROOT / room).rglob("*.py") if path.is_file()]
    needed = {path.relative_to(ROOT): found(path.read_text(encoding="utf-8")) for path in files}
    assert {str(path): lines for path, lines in needed.items() if lines} == {}


def test_what_needs_posix_is_found():
    assert found("import os\nimport fcntl\nos.fork()\n") == [2, 3]
    assert found("try:\n    import fcntl\nexcept ImportError:\n    fcntl = None\n") == []
    assert found('import os\nn = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1\n') == []
    assert found("from resource import getrusage\nimport signal\nsignal.signal(signal.SIGKILL, None)\n") == [1, 3]
