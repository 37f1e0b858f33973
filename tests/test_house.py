"""The order of the house: which room and which floor may import what, and what the wheel carries."""

import ast
import json
import shutil
import subprocess
import sys
import tomllib
import zipfile
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ROOMS = ("dfplan", "envs", "agents", "benchmarks")
FLOORS = {
    "dfplan": (
        {"arrays", "fields", "intervals", "quoting", "whole_files", "locks", "names", "worker_processes"},
        {"config_json", "command", "onnx_file"},
        {"diffusion", "data", "training"},
        {"models"},
        {"planning"},
        {"viewer"},
    ),
    "envs": (
        {"maze", "fork", "real_arrays", "minari_store", "numpys_generator", "packages", "shards"},
        {"registry", "assemble"},
        {
            "reference",
            "ogbench",
            "ogbench_mazes",
            "fetch",
            "locomotion",
            "kitchen",
            "memory_swap",
            "memory_swap_script",
            "sight",
        },
        {"collect"},
    ),
    "agents": (
        {"hub", "loading", "base", "planning_agent", "agent_config", "episodes", "pictures"},
        {"offline", "online", "adapters", "full_sequence", "evaluation"},
        {
            "diffuser",
            "decision_diffuser",
            "diffusion_policy",
            "diffusion_veteran",
            "graph_search",
            "mppi",
            "recurrent_policy",
        },
        {"diffusion_forcing", "weights"},
        {"recipes", "distillation"},
        {"training"},
    ),
}
"""Of each room, from the ground up: a module or folder imports its own floor and those below."""
ROOF = "dfplan/viewer/"
"""The page in the browser, which a user finds beside the rooms: it shows all of them, and none imports it."""
HIGHEST = 6
"""Files in the longest chain of imports within benchmarks/."""
PROCESSES = [f"joblib.{name}" for name in ("Parallel", "delayed", "parallel_config", "register_parallel_backend")]
PROCESSES.append("joblib.externals.loky.get_reusable_executor")
"""What of joblib may be imported: worker processes, and nothing that opens a pickle."""


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
    found = offenders("dfplan", ["dfplan.envs", "dfplan.agents", "dfplan.benchmarks", "gymnasium", "mujoco"])
    assert [offender for offender in found if not offender.startswith(ROOF)] == []


def test_nothing_imports_the_viewer():
    found = [offender for room in ROOMS for offender in offenders(room, ["dfplan.viewer", "starlette", "uvicorn"])]
    assert found and [offender for offender in found if not offender.startswith(ROOF)] == []


def test_environments_know_no_torch_and_nothing_of_the_method():
    ground = ("whole_files", "locks", "command", "names", "worker_processes")
    allowed = ["dfplan.envs", *(f"dfplan.{name}" for name in ground)]
    assert offenders("envs", ["torch", "lightning", "lightning_fabric", "dfplan"], allowed=allowed) == []


def test_agents_know_no_environments_and_no_benchmarks():
    assert offenders("agents", ["dfplan.envs", "dfplan.benchmarks", "mujoco", "minari"]) == []


@pytest.mark.parametrize("room", ROOMS)
def test_rooms_are_imported_by_their_installed_names_and_nothing_is_pickled(room):
    own = ["agents/base.py imports pickle"]  # what a user who pickles an agent asks for; no file is opened by it
    found = offenders(room, ["envs", "agents", "benchmarks", "pickle", "dill", "cloudpickle", "joblib"], PROCESSES)
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


def place(path):
    """A file's full name: dfplan.envs.maze.env for envs/maze/env.py."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    parts = parts if parts[0] == "dfplan" else ("dfplan", *parts)
    return ".".join(part for part in parts if part != "__init__")


def test_every_module_has_a_floor_and_imports_only_downwards():
    upwards = []
    for room, floors in FLOORS.items():
        own = "dfplan" if room == "dfplan" else f"dfplan.{room}"
        floor = {f"{own}.{name}": level for level, names in enumerate(floors) for name in names}

        def level(name, floor=floor):
            return next((floor[known] for known in floor if name == known or name.startswith(known + ".")), None)

        for path in files(room):
            here = place(path)
            if here == own:
                continue
            assert level(here) is not None, f"{path.relative_to(ROOT)}: give it a floor in tests/test_house.py"
            above = [name for name in imports(path) if (level(name) or 0) > level(here)]
            upwards += [f"{path.relative_to(ROOT)} imports {name}" for name in above]
    assert upwards == []


def imported_by(rooms):
    """Of each file of the rooms the files in them that it imports, {name: set of names}."""
    modules = {place(path): path for room in rooms for path in files(room)}
    graph = {}
    for module, path in modules.items():
        names = {
            next((name for name in (full, full.rpartition(".")[0]) if name in modules), None) for full in imports(path)
        }
        graph[module] = names - {None, module}
    return graph


def test_no_imports_go_in_a_circle():
    """Between files, wherever the import stands in them, for type checkers alone or late."""
    assert circle(imported_by(ROOMS)) == []


def test_no_chain_of_imports_in_the_benchmark_is_long():
    longest = longest_chain(imported_by(["benchmarks"]))
    assert len(longest) <= HIGHEST, " imports ".join(longest)


def longest_chain(graph):
    """The nodes of the longest way through a graph {node: set of nodes} without circles, from its top down."""
    ways = {}
    for node in TopologicalSorter(graph).static_order():
        ways[node] = [node, *max((ways[below] for below in graph[node]), key=len, default=[])]
    return max(ways.values(), key=len, default=[])


def circle(graph):
    """The nodes of a circle in a graph {node: set of nodes}, in order; empty if there is none."""
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return error.args[1]
    return []


def test_the_check_finds_circles():
    assert circle({"a": {"b"}, "b": {"c"}, "c": set()}) == []
    assert set(circle({"a": {"b"}, "b": {"c"}, "c": {"a"}})) == {"a", "b", "c"}


def test_the_check_finds_the_longest_chain():
    assert longest_chain({"a": {"b", "d"}, "b": {"c"}, "c": set(), "d": set()}) == ["a", "b", "c"]


def test_the_check_sees_imports_of_every_form(tmp_path):
    """A check that cannot fail keeps nothing."""
    path = tmp_path / "file.py"
    lines = ["import torch.nn as nn", "from dfplan import envs", "def f():", " import pickle"]
    path.write_text("\n".join([*lines, " from dfplan.envs.registry import find"]))
    assert imports(path) == {"torch.nn", "dfplan.envs", "pickle", "dfplan.envs.registry.find"}


def test_editors_find_every_import_by_folders_alone():
    """Tools that install nothing look for dfplan.envs.registry in dfplan/envs/registry.py: links lead to the rooms."""
    missing = set()
    for path in (*(path for room in ROOMS for path in files(room)), *(ROOT / "tests").rglob("*.py")):
        for name in imports(path):
            parts = name.split(".")
            if parts[0] == "dfplan":
                # The last part of 'from a import b' may be a name within a.
                found = [ROOT.joinpath(*parts[:end]) for end in (len(parts), len(parts) - 1) if end]
                if not any(place.with_suffix(".py").is_file() or (place / "__init__.py").is_file() for place in found):
                    missing.add(name)
    assert missing == set()
    assert all((ROOT / "dfplan" / room).resolve() == ROOT / room for room in ROOMS[1:])


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("pyright") is None, reason="pyright is not installed")
def test_pyright_resolves_every_import_of_the_package():
    command = ["pyright", "--outputjson", *ROOMS[1:]]
    found = json.loads(subprocess.run(command, cwd=ROOT, capture_output=True, text=True).stdout)["generalDiagnostics"]
    unresolved = [one["message"] for one in found if one.get("rule") == "reportMissingImports"]
    assert [message for message in unresolved if '"dfplan' in message] == []


def test_the_wheel_holds_one_package_and_all_of_it(tmp_path):
    """Built from a copy, so that no old build folder can fill a gap; its weights' files are empty, which are packed at once."""
    source = tmp_path / "source"

    def copied(original, copy):
        if Path(original).suffix in (".safetensors", ".zip"):
            Path(copy).touch()
        else:
            shutil.copy(original, copy)

    for room in ROOMS:
        ignored = shutil.ignore_patterns("__pycache__", "*.egg-info")
        shutil.copytree(ROOT / room, source / room, ignore=ignored, copy_function=copied)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source / name)
    build = "import sys; from setuptools.build_meta import build_wheel; build_wheel(sys.argv[1])"
    done = subprocess.run([sys.executable, "-c", build, tmp_path / "dist"], cwd=source, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    held = {name for name in zipfile.ZipFile(wheel).namelist() if not name.endswith("/")}
    metadata = f"{'-'.join(wheel.name.split('-')[:2])}.dist-info"
    assert {name.split("/")[0] for name in held} == {"dfplan", metadata}
    kinds = {".py", ".json", ".toml", ".typed", ".safetensors", ".zip", ".html"}
    left_out = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["exclude-package-data"]
    expected = {
        str(Path("dfplan", *(() if room == "dfplan" else (room,)), path.relative_to(source / room)))
        for room in ROOMS
        for path in (source / room).rglob("*")
        if path.is_file()
        and path.suffix in kinds
        and not any(path.match(pattern) for patterns in left_out.values() for pattern in patterns)
    }
    assert expected - held == set(), "files of the tree that the wheel lacks"
    assert {name for name in held if name.startswith("dfplan/")} - expected == set(), "files that are not the tree's"
    shipped = [
        ROOT / Path(name).relative_to("dfplan") for name in held if Path(name).suffix in (".safetensors", ".zip")
    ]
    assert sum(path.stat().st_size for path in shipped) < 30 * 2**20, "weights of further rows stay in the repository"
