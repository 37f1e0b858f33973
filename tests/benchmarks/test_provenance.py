import subprocess
from pathlib import Path

import pytest

from dfplan.benchmarks import provenance

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
