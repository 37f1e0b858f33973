import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from dfplan.benchmarks import own, provenance

ROOT = Path(__file__).resolve().parents[2]


def git(*arguments, folder=ROOT):
    ran = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True)
    return ran.stdout.strip() if ran.returncode == 0 else None


def test_the_machine_and_the_versions_are_named():
    assert provenance.versions()["dfplan"] and provenance.versions()["mujoco"]
    assert provenance.hardware()["cores"] >= 1 and set(provenance.hardware()) == {"cpu", "cores", "system"}


def test_the_commit_is_the_trees_own():
    """None where the tree is no checkout, as in a release's archive."""
    head = git("rev-parse", "HEAD") if git("ls-files", "benchmarks/provenance.py") else None
    changed = head is not None and git("status", "--porcelain", "--untracked-files=no") != ""
    assert provenance.commit() == (f"{head}+" if changed else head)


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A small checkout that holds the file, and a function that runs git in it."""
    (tmp_path / "provenance.py").write_text("x = 1\n")
    monkeypatch.setattr(provenance, "__file__", str(tmp_path / "provenance.py"))

    def run(*arguments):
        return git("-c", "user.name=a", "-c", "user.email=a@b", *arguments, folder=tmp_path)

    run("init")
    return run


def test_a_changed_tree_is_marked_and_a_file_that_is_not_in_it_has_no_commit(checkout, tmp_path):
    checkout("commit", "--allow-empty", "-m", "empty")
    assert provenance.commit() is None
    checkout("add", ".")
    checkout("commit", "-m", "file")
    assert provenance.commit() == checkout("rev-parse", "HEAD")
    (tmp_path / "provenance.py").write_text("x = 2\n")
    assert provenance.commit() == checkout("rev-parse", "HEAD") + "+"


@pytest.fixture
def rooms(tmp_path, monkeypatch):
    """Small rooms in place of dfplan's own, and a function that hashes their code anew."""
    files = ["dfplan/a.py", "dfplan/planning/b.py", "envs/c.py", "agents/d.py", "benchmarks/report.py"]
    for name in (*files, *(f"benchmarks/{name}" for name in provenance.PLAYED)):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(f"x = '{name}'\n")
    found = [tmp_path / room for room in ("dfplan", "envs", "agents", "benchmarks")]
    monkeypatch.setattr(provenance, "folders", lambda: found)
    yield provenance.code.__wrapped__


def test_the_method_s_files_and_the_protocol_count_and_no_others(rooms, tmp_path):
    before = rooms()
    for name in ("dfplan/planning/b.py", "envs/c.py", "agents/d.py", "benchmarks/protocol.py"):
        text = (tmp_path / name).read_text()
        (tmp_path / name).write_text(f"{text}# a comment\n")
        assert rooms() != before
        (tmp_path / name).write_text(text)
    for name in ("benchmarks/report.py", "agents/weights.zip", "other.py"):
        (tmp_path / name).write_text("another")
    assert rooms() == before
    (tmp_path / "agents" / "new.py").touch()
    assert rooms() != before


def test_the_code_is_the_same_in_a_checkout_and_where_a_wheel_is_installed(rooms, tmp_path, monkeypatch):
    checkout = rooms()
    wheel = tmp_path / "site" / "dfplan"
    shutil.copytree(tmp_path / "dfplan", wheel)
    for room in ("envs", "agents", "benchmarks"):
        shutil.copytree(tmp_path / room, wheel / room)
    monkeypatch.setattr(provenance, "folders", lambda: [wheel, wheel / "envs", wheel / "agents", wheel / "benchmarks"])
    assert rooms() == checkout


def test_a_file_that_changed_is_known_by_its_bytes(tmp_path):
    small, large = tmp_path / "agent.py", tmp_path / "data.bin"
    small.write_text("gain = 1.0\n")
    large.write_bytes(b"1" * 3_000_000)
    files = {str(one): provenance.file_hash(one) for one in (small, large)}
    assert own.changed(files) == []
    small.write_text("gain = 1.5\n")
    large.write_bytes(b"1" * 2_999_999 + b"2")
    assert own.changed(files) == [str(small), str(large)]
    small.unlink()
    assert own.changed(files) == [str(small), str(large)]
    with pytest.raises(FileNotFoundError):
        provenance.file_hash(small)


def test_configurations_are_told_apart_by_values_alone():
    assert provenance.data_hash({"a": 1, "b": [None, 2.5]}) == provenance.data_hash({"b": [None, 2.5], "a": 1})
    assert provenance.data_hash({"a": 1}) != provenance.data_hash({"a": 2})


def test_no_agent_is_imported_for_the_hash_of_its_code():
    code = "import sys; from dfplan.benchmarks.provenance import code; code(); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
