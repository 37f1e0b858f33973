import subprocess
import sys

import pytest

from dfplan.benchmarks import fingerprint

SOURCE = '''
"""A docstring."""
from toyhouse.inner import GAIN
import numpy as np  # elsewhere

class Agent:
    """Says what it is."""
    gain: float = 1.0
    """A sentence under a field."""

    def act(self, x):
        from toyhouse.lazy import twice
        return twice(GAIN * x)
'''


@pytest.fixture
def house(tmp_path, monkeypatch):
    """A package of a few files, as dfplan is one, and a function that writes one of them anew."""
    folder = tmp_path / "toyhouse"
    folder.mkdir()

    def write(name, text):
        (folder / f"{name}.py").write_text(text)
        fingerprint.locate.cache_clear()

    texts = {"__init__": "VERSION = 1", "inner": "GAIN = 2", "lazy": "def twice(x):\n    return 2 * x", "other": "1"}
    for name, text in (texts | {"agent": SOURCE}).items():
        write(name, text)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(fingerprint, "PACKAGE", "toyhouse")
    monkeypatch.delitem(sys.modules, "toyhouse", raising=False)  # of another test's folder
    yield write
    fingerprint.locate.cache_clear()


def test_the_closure_follows_imports_of_every_form(house):
    assert fingerprint.closure(["toyhouse.agent"]) == {"toyhouse.agent", "toyhouse.inner", "toyhouse.lazy"}


def test_words_do_not_count(house):
    before = fingerprint.code(["toyhouse.agent"])
    house("agent", SOURCE.replace("A docstring.", "Another.").replace("Says what", "Tells what").replace("A sentence", "Words"))
    assert fingerprint.code(["toyhouse.agent"]) == before
    house("agent", SOURCE.replace("# elsewhere", "# a comment").replace("return twice(GAIN * x)", "return twice(\n    GAIN*x)"))
    assert fingerprint.code(["toyhouse.agent"]) == before


@pytest.mark.parametrize(
    ("module", "text"),
    [
        ("agent", SOURCE.replace("1.0", "1.5")),
        ("inner", "GAIN = 3"),
        ("lazy", "def twice(x):\n    return 3 * x"),
        ("agent", SOURCE.replace("import numpy as np", "import numpy as np, toyhouse.other")),
    ],
)
def test_what_decides_counts_wherever_it_stands(house, module, text):
    before = fingerprint.code(["toyhouse.agent"])
    house(module, text)
    assert fingerprint.code(["toyhouse.agent"]) != before


@pytest.mark.parametrize(("module", "text"), [("other", "2"), ("__init__", "VERSION = 2")])
def test_what_is_not_imported_and_the_version_do_not_count(house, module, text):
    before = fingerprint.code(["toyhouse.agent"])
    house(module, text)
    assert fingerprint.code(["toyhouse.agent"]) == before


def test_what_only_a_type_checker_reads_does_not_count(house):
    lines = ["from typing import TYPE_CHECKING", "if TYPE_CHECKING:", "    from toyhouse.other import x", "else:"]
    house("agent", "\n".join([*lines, "    import toyhouse.lazy"]))
    assert fingerprint.closure(["toyhouse.agent"]) == {"toyhouse.agent", "toyhouse.lazy"}


def test_a_users_module_counts_with_its_own_file(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    path = tmp_path / "somebodys_agent.py"
    path.write_text("import json\nfrom dfplan.envs.maze.layouts import Layout\nGAIN = 1")
    assert fingerprint.closure(["somebodys_agent"]) >= {"somebodys_agent", "dfplan.envs.maze.layouts"}
    assert "json" not in fingerprint.closure(["somebodys_agent"])
    before = fingerprint.code(["somebodys_agent"])
    path.write_text("import json\nfrom dfplan.envs.maze.layouts import Layout\nGAIN = 12")
    assert fingerprint.code(["somebodys_agent"]) != before


def test_the_paper_agents_code_reaches_the_sampler_but_not_the_report():
    found = fingerprint.closure(["dfplan.agents.diffusion_forcing", "dfplan.benchmarks.protocol"])
    reached = {"dfplan.diffusion.sampler", "dfplan.models.transformer", "dfplan.benchmarks.protocol", "dfplan.envs.registry"}
    assert reached <= found
    assert not found & {"dfplan", "dfplan.benchmarks.report", "dfplan.benchmarks.cells", "dfplan.benchmarks.rows"}


def test_no_module_is_run_for_its_fingerprint():
    code = "import sys; from dfplan.benchmarks.fingerprint import code; code(['dfplan.agents.diffusion_forcing'])"
    done = subprocess.run([sys.executable, "-c", f"{code}; sys.exit('torch' in sys.modules)"])
    assert done.returncode == 0


def test_modules_without_source_and_missing_weights_are_refused(tmp_path):
    for name in ("math", "no_such_module", "dfplan.agents.no_such_agent"):
        with pytest.raises(ValueError, match="has no source file"):
            fingerprint.code([name])
    with pytest.raises(FileNotFoundError):
        fingerprint.weights(tmp_path / "none.safetensors")


def test_weights_are_told_apart_by_their_bytes(tmp_path):
    first, second, third = (tmp_path / name for name in "abc")
    first.write_bytes(b"1" * 3_000_000)
    second.write_bytes(b"1" * 3_000_000)
    third.write_bytes(b"1" * 2_999_999 + b"2")
    assert fingerprint.weights(first) == fingerprint.weights(second) != fingerprint.weights(third)


def test_configurations_are_told_apart_by_values_alone():
    assert fingerprint.config({"a": 1, "b": [None, 2.5]}) == fingerprint.config({"b": [None, 2.5], "a": 1})
    assert fingerprint.config({"a": 1}) != fingerprint.config({"a": 2})
