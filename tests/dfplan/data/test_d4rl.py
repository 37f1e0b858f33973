"""Our reference scores against the d4rl package itself, installed without its dead dependencies into a folder."""

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from dfplan.envs.reference import reference

pytestmark = pytest.mark.slow

RECIPE = ("--no-deps", "d4rl==1.1", "gym==0.26.2", "tqdm")
UNREACHABLE = ("No matching distribution found", "Could not find a version", "Could not connect", "ConnectionError")


@pytest.fixture(scope="module")
def d4rl(tmp_path_factory) -> Path:
    """A folder with d4rl in it, by the recipe in the docstring of `load_d4rl`."""
    target = tmp_path_factory.mktemp("d4rl")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--quiet", "--retries", "1"]
    result = subprocess.run([*pip, "--target", str(target), *RECIPE], capture_output=True, text=True)
    if result.returncode and any(sign in result.stderr for sign in UNREACHABLE):
        pytest.skip(f"pip reaches no package index that has d4rl: {result.stderr.strip().splitlines()[-1]}")
    assert result.returncode == 0, result.stderr
    return target


def ask(d4rl: Path, question: str) -> dict:
    """What `question`, run with d4rl importable, prints as JSON."""
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, [str(d4rl), os.environ.get("PYTHONPATH")])),
        "D4RL_DATASET_DIR": str(d4rl / "datasets"),
        "D4RL_SUPPRESS_IMPORT_ERROR": "1",
    }
    result = subprocess.run([sys.executable, "-c", question], capture_output=True, text=True, env=environment)
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout.splitlines()[-1])


def test_reference_returns_equal_d4rls_own(d4rl):
    tables = ask(d4rl, "import json, d4rl.infos as i; print(json.dumps([i.REF_MIN_SCORE, i.REF_MAX_SCORE]))")
    ids = [name for name in tables[0] if name.startswith("maze2d-")]
    assert {"maze2d-umaze-v1", "maze2d-medium-v1", "maze2d-large-v1", "maze2d-large-dense-v1"} <= set(ids)
    for name in ids:
        assert (reference(name).min_return, reference(name).max_return) == (tables[0][name], tables[1][name]), name


def test_reference_returns_and_episode_lengths_equal_d4rls_registrations(d4rl):
    # Importing these registrations needs mujoco-py, which is dead; as text they can still be read.
    tree = ast.parse((d4rl / "d4rl" / "pointmaze" / "__init__.py").read_text())
    compared = 0
    for call in ast.walk(tree):
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == "register":
            fields = {keyword.arg: keyword.value for keyword in call.keywords}
            name, steps = (ast.literal_eval(fields[key]) for key in ("id", "max_episode_steps"))
            if name.endswith("-v0") and "open" not in name:
                continue  # superseded by -v1
            arguments = fields["kwargs"]
            scores = dict(zip(map(ast.literal_eval, arguments.keys), arguments.values, strict=True))
            low, high = (ast.literal_eval(scores[key]) for key in ("ref_min_score", "ref_max_score"))
            ours = reference(name)
            assert (ours.min_return, ours.max_return, ours.max_episode_steps) == (low, high, steps), name
            compared += 1
    assert compared == 14


def test_the_reader_finds_addresses_in_the_installed_d4rl(d4rl):
    question = """
import json
from dfplan.data.readers import load_d4rl
try:
    load_d4rl("maze2d-large-v9")
except ValueError as error:
    print(json.dumps({"error": str(error)}))
"""
    assert "close to it: maze2d-large-v1" in ask(d4rl, question)["error"]
