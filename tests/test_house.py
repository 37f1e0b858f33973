"""The order of the house: which room and which floor may import what, and what the wheel carries."""

import ast
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ROOMS = ("dfplan", "envs", "agents", "benchmarks")
FLOORS = (
    {"fields", "quoting", "schedules", "levels", "scheduling", "tokens", "normalizers", "whole_files", "locks"},
    {"config_json", "models"},
    {"diffusion", "guidance"},
    {"sampler", "search"},
    {
        *("datasets", "array_files", "minari_sets", "readers", "checkpoint", "weights_file"),
        *("averaging", "run_folder", "runlog", "train_config", "training"),
    },
    {"trajectory_model", "dynamics_model"},
    {"planner"},
)
"""From the ground up: a module of `dfplan/` imports its own floor and those below."""


def files(room):
    return sorted(path for path in (ROOT / room).rglob("*.py") if "__pycache__" not in path.parts)


def imports(path):
    """Full names of all that a file imports, wherever in it: 'from dfplan import envs' counts as dfplan.envs."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(), str(path))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.relative_to(ROOT)} imports relatively; write the whole name"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def offenders(room, forbidden, allowed=()):
    """'file imports name' for each import in a room of a forbidden package, or of a part of it."""

    def within(name, packages):
        return any(name == package or name.startswith(package + ".") for package in packages)

    return [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in files(room)
        for name in sorted(imports(path))
        if within(name, forbidden) and not within(name, allowed)
    ]


def test_the_method_knows_no_environments_agents_or_benchmarks():
    assert offenders("dfplan", ["dfplan.envs", "dfplan.agents", "dfplan.benchmarks", "gymnasium", "mujoco"]) == []


def test_environments_know_no_torch_and_nothing_of_the_method():
    allowed = ["dfplan.envs", "dfplan.whole_files", "dfplan.locks"]
    assert offenders("envs", ["torch", "lightning", "lightning_fabric", "dfplan"], allowed=allowed) == []


def test_agents_know_no_environments_and_no_benchmarks():
    assert offenders("agents", ["dfplan.envs", "dfplan.benchmarks", "mujoco", "minari"]) == []


@pytest.mark.parametrize("room", ROOMS)
def test_rooms_are_imported_by_their_installed_names_and_nothing_is_pickled(room):
    own = ["agents/base.py imports pickle"]  # what a user who pickles an agent asks for; no file is opened by it
    found = offenders(room, ["envs", "agents", "benchmarks", "pickle", "dill", "cloudpickle", "joblib"])
    assert [offender for offender in found if offender not in own] == []
    for path in files(room):
        tree = ast.parse(path.read_text())
        safe = {id(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call) and for_weights_only(node)}
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "torch":
                unsafe = node.attr in ("save", "load") and id(node) not in safe
                assert not unsafe, f"{path.relative_to(ROOT)} calls torch.{node.attr}: a pickle"


def for_weights_only(call):
    """Whether a call says weights_only=True, which is what torch needs to open other people's tensors without unpickling."""
    return any(
        word.arg == "weights_only" and isinstance(word.value, ast.Constant) and word.value.value is True
        for word in call.keywords
    )


@pytest.mark.parametrize("room", ROOMS)
def test_no_file_is_a_drawer_for_everything(room):
    names = {"utils", "util", "helpers", "misc", "common"}
    drawers = [path.relative_to(ROOT) for path in files(room) if names & {path.stem, path.parent.name}]
    assert drawers == []


def test_every_module_has_a_floor_and_imports_only_downwards():
    floor = {module: level for level, modules in enumerate(FLOORS) for module in modules}
    upwards = []
    for path in files("dfplan"):
        module = path.relative_to(ROOT / "dfplan").parts[0].removesuffix(".py")
        if module == "__init__":
            continue
        assert module in floor, f"dfplan/{module}: give it a floor in tests/test_house.py"
        for name in imports(path):
            package, _, rest = name.partition(".")
            used = rest.split(".")[0]
            if package == "dfplan" and floor.get(used, -1) > floor[module]:
                upwards.append(f"{path.relative_to(ROOT)} imports {name}")
    assert upwards == []


def test_the_check_sees_imports_of_every_form(tmp_path):
    """A check that cannot fail keeps nothing."""
    path = tmp_path / "file.py"
    lines = ["import torch.nn as nn", "from dfplan import envs", "def f():", " import pickle"]
    path.write_text("\n".join([*lines, " from dfplan.envs.tasks import find"]))
    assert imports(path) == {"torch.nn", "dfplan.envs", "pickle", "dfplan.envs.tasks.find"}


def test_the_wheel_holds_one_package_and_all_of_it(tmp_path):
    """Built from a copy, so that no old build folder can fill a gap."""
    source = tmp_path / "source"
    for room in ROOMS:
        shutil.copytree(ROOT / room, source / room, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source / name)
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", tmp_path / "dist", source]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    held = {name for name in zipfile.ZipFile(wheel).namelist() if not name.endswith("/")}
    metadata = f"{'-'.join(wheel.name.split('-')[:2])}.dist-info"
    assert {name.split("/")[0] for name in held} == {"dfplan", metadata}
    kinds = {".py", ".json", ".typed", ".safetensors", ".zip"}
    expected = {
        str(Path("dfplan", *(() if room == "dfplan" else (room,)), path.relative_to(source / room)))
        for room in ROOMS
        for path in (source / room).rglob("*")
        if path.is_file() and path.suffix in kinds
    }
    assert expected - held == set(), "files of the tree that the wheel lacks"
    assert {name for name in held if name.startswith("dfplan/")} - expected == set(), "files that are not the tree's"
