import re

from dfplan.benchmarks import provenance


def test_the_machine_and_the_versions_are_named():
    assert provenance.versions()["dfplan"] and provenance.versions()["mujoco"]
    assert provenance.hardware()["cores"] >= 1 and set(provenance.hardware()) == {"cpu", "cores", "system"}


def test_the_commit_is_the_trees_own():
    found = provenance.commit()
    assert found is None or re.fullmatch(r"[0-9a-f]{40}\+?", found)
