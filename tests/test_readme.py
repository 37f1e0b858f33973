"""What README, CONTRIBUTING and docs/ show is there and runs: commands, options, files, examples; CITATION.cff is whole."""

import contextlib
import io
import re
import runpy
import shlex
import subprocess
import sys
from functools import cache
from pathlib import Path

import gymnasium
import numpy as np
import pytest
import yaml

import dfplan

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
PAGES = {page.name: page.read_text(encoding="utf-8") for page in sorted((ROOT / "docs").glob("*.md"))}


def blocks(document):
    """(mark or '', language, text) of each code block."""
    return re.findall(r"^(?:<!-- (\S+) -->\n)?```(\w+)\n(.*?)^```$", document, flags=re.MULTILINE | re.DOTALL)


def block(mark, document=README):
    (found,) = (text for name, _, text in blocks(document) if name == mark)
    return found


def commands(document=README):
    """The python commands of all bash blocks, as lists of words without comments."""
    lines = "\n".join(text for _, language, text in blocks(document) if language == "bash").splitlines()
    parts = [shlex.split(part, comments=True) for line in lines for part in line.split("&&")]
    words = [[word for word in part if not re.fullmatch(r"[A-Z0-9_]+=\S*", word)] for part in parts]
    return [part for part in words if part[:1] == ["python"] and part[1:3] != ["-m", "venv"]]


@cache
def help_of(*program):
    """What a program answers to --help, asked within this process, because importing torch takes seconds."""
    shown = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(shown), pytest.raises(SystemExit) as end:
        patch.setenv("COLUMNS", "200")
        patch.setattr(sys, "argv", [program[-1], "--help"])
        if program[0] == "-m":
            for name in (program[1], f"{program[1]}.__main__"):
                patch.delitem(sys.modules, name, raising=False)  # or runpy warns of running it twice
            runpy.run_module(program[1], run_name="__main__", alter_sys=True)
        else:
            runpy.run_path(str(ROOT / program[0]), run_name="__main__")
    assert end.value.code in (0, None)
    return shown.getvalue()


def test_the_two_commands_differ_in_their_job_alone():
    main, tests = block("ci:main"), block("ci:test")
    assert main.count("\n") == tests.count("\n") == 1
    start = "python -m venv .venv && . .venv/bin/activate && pip install -c constraints.txt -e "
    assert main == f"{start}. && python benchmarks/run.py --env maze2d-large\n"
    assert tests == f'{start}".[test]" && pytest\n'


def test_commands_are_found_in_the_readme():
    programs = {" ".join(command[1 : 3 if command[1] == "-m" else 2]) for command in commands()}
    expected = {"benchmarks/run.py", "benchmarks/train.py", "-m dfplan.viewer", "-m dfplan.agents.weights"}
    assert expected <= programs


ALL = {
    " ".join(command): command for document in (README, CONTRIBUTING, *PAGES.values()) for command in commands(document)
}


@pytest.mark.parametrize("command", ALL.values(), ids=ALL.keys())
def test_a_command_of_the_readme_or_a_page_exists_with_its_options(command):
    program, rest = (command[1:3], command[3:]) if command[1] == "-m" else (command[1:2], command[2:])
    shown = help_of(*program)
    for word in rest:
        if word.startswith("--"):
            assert re.search(rf"(?<![\w-]){re.escape(word)}(?![\w-])", shown), f"{' '.join(program)} has no {word}"


@pytest.mark.parametrize(("document", "known"), [(README, "planning/ask.py"), (CONTRIBUTING, "planning/costs.py")])
def test_files_and_folders_that_a_document_names_exist(document, known):
    links = re.findall(r'(?:src="|\]\()([^)"#]+)', document)
    names = re.findall(r"`([\w./-]+(?:\.(?:py|cff|md|rst|toml|txt)|/))`", document)
    assert "docs/glossary.md" in links and f"dfplan/{known}" in names
    made_by_runs = ("results/", "runs/", "mine.txt", "benchmarks/suites/NAME.py")
    local = [name for name in [*links, *names] if "://" not in name and not name.startswith(made_by_runs)]
    assert [name for name in local if not (ROOT / name).exists()] == []


def test_the_first_screen_says_of_the_mazes_what_the_table_shows():
    assert "In each of the six maze tasks of the [table](#results), Diffusion Forcing scores more than every" in README
    lines = {line.split(" | ")[0]: line for line in reversed(README.splitlines()) if line.startswith("| ")}
    ours, printed = (
        re.findall(r"\| \(?\**([\d.]+)", lines[f"| {name}"]) for name in ("diffusion-forcing", "*best printed*")
    )
    assert len(ours) == len(printed) == 6
    assert all(float(one) > float(other) for one, other in zip(ours, printed, strict=True))


def test_the_claims_page_begins_with_what_each_experiment_found():
    found = r"<!-- experiment:([\w-]+):begin -->(?:(?!<!--).)*It (held|did not hold)\."
    verdicts = dict(pair for page in PAGES.values() for pair in re.findall(found, page, flags=re.DOTALL))
    said = dict(re.findall(r"^\| [^|]+ \| \[?`([\w-]+)`[^|]* \| (yes|no)\b", PAGES["claims.md"], flags=re.MULTILINE))
    assert len(said) == 7 and said == {name: "yes" if verdicts[name] == "held" else "no" for name in said}


def test_the_method_is_read_in_the_order_of_its_package():
    import dfplan.diffusion

    (sentence,) = re.findall(r"read these eight files of `dfplan/diffusion/`\s+in this order: ([^.]*)\.", README)
    named = re.findall(r"`(\w+)`", sentence)
    assert named == re.findall(r"^\d\. `(\w+)`", dfplan.diffusion.__doc__, flags=re.MULTILINE) and len(named) == 8
    assert [name for name in named if not (ROOT / "dfplan" / "diffusion" / f"{name}.py").is_file()] == []


@pytest.mark.parametrize("page", PAGES)
def test_links_of_a_page_lead_to_files(page):
    links = re.findall(r"\]\(([\w./-]+\.\w+)\)", PAGES[page])
    assert [link for link in links if not (ROOT / "docs" / link).exists()] == []


def test_every_page_is_linked_from_the_readme():
    assert [page for page in PAGES if f"(docs/{page})" not in README] == []


@pytest.mark.parametrize("source", ["tests/dfplan/training/test_interruption.py", "tests/envs/test_collect.py"])
def test_a_claim_names_a_test_that_exists(source):
    assert f"`pytest {source}`" in README and (ROOT / source).is_file()


def test_the_time_of_the_whole_table_is_that_of_the_recorded_files():
    from dfplan.benchmarks.results import cells_in

    (hours,), (minutes,) = (
        re.findall(r"add up to ([\d.]+) hours", README),
        re.findall(r"about (\d+)\s+minutes on two", README),
    )
    seconds = sum(cell.seconds for cell in cells_in(ROOT / "benchmarks" / "recorded"))
    assert float(hours) == round(seconds / 3600, 1) and abs(int(minutes) - seconds / 120) < 5


def test_options_that_the_readme_names_are_those_of_the_agent():
    from dataclasses import fields

    from dfplan.agents.agent_config import AgentConfig
    from dfplan.planning.plan_config import PlanConfig

    known = {field.name for config in (AgentConfig, PlanConfig) for field in fields(config)}
    (shown,) = re.findall(r"with_options\(([^)]*)\)", README)
    assert set(re.findall(r"(\w+)=", shown)) | {"speed", "arrival"} <= known


def test_the_api_example_runs():
    names = {}
    exec(block("test:api"), names)
    assert names["truncated"] and names["plan"].observations.shape[0] == 1 and names["plan"].history


def test_every_example_has_a_mark_by_which_a_test_finds_it():
    documents = {"README.md": README, "CONTRIBUTING.md": CONTRIBUTING, **PAGES}
    marks = {(name, mark) for name, text in documents.items() for mark, kind, _ in blocks(text) if kind == "python"}
    tests = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("test_*.py"))
    named = {mark for _, mark in marks if re.search(rf"[\"':]{mark.removeprefix('test:')}\b", tests)}
    assert len(marks) > 20 and sorted(where for where in marks if where[1] not in named) == []


def test_one_training_seed_of_several_is_loaded():
    names = {}
    exec(block("test:member"), names)
    assert names["agent"].config.member == 2


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("mode", ["NEXT_STEP", "SAME_STEP"])
@pytest.mark.parametrize("agent", ["maze2d-umaze-her", pytest.param("maze2d-umaze", marks=pytest.mark.slow)])
def test_the_vector_example_runs_in_both_modes(mode, agent):
    """Beyond the end of the first episodes, without the warning that an end was missed; as it stands, and with a fast agent."""
    names, source = {}, block("test:vector", PAGES["loops.md"])
    assert source.count("AutoresetMode.NEXT_STEP") == source.count('"maze2d-umaze"') == 1 and "range(320)" in source
    exec(source.replace(".NEXT_STEP", f".{mode}").replace('"maze2d-umaze"', f'"{agent}"'), names)
    assert names["policy"].autoreset.value == {"NEXT_STEP": "NextStep", "SAME_STEP": "SameStep"}[mode]
    assert names["returns"].sum() > 400 and np.isfinite(names["action"]).all()


def test_the_maze_example_runs():
    names = {}
    exec(block("test:maze", PAGES["your-own-maze.md"]), names)
    observation, info = names["env"].reset(seed=0)
    assert observation.shape == (4,) and info["goal"].tolist() == [3, 5] and names["env"].render().ndim == 3


def test_the_example_that_trains_on_other_data_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    arrays = {
        "observations": rng.normal(size=(200, 7)),
        "actions": rng.uniform(-1, 1, (200, 3)),
        "terminals": np.zeros(200),
    }
    np.savez("robot.npz", **{name: array.astype(np.float32) for name, array in arrays.items()})
    source, names = block("test:fit", PAGES["training.md"]), {}
    assert source.count("steps=2_000") == source.count("tokens=16") == 1
    exec(source.replace("steps=2_000", "steps=3, batch_size=2").replace("tokens=16", "tokens=4"), names)
    names["agent"].reset(goal=(0.0, 0.0, 0.0), seed=0)
    assert names["agent"].act(names["data"].observations[0]).shape == (3,)
    assert (tmp_path / "runs" / "robot" / "weights.safetensors").is_file()


def test_the_example_of_evaluation_runs(capsys):
    class Still:
        reset = staticmethod(lambda **what: None)
        act = staticmethod(lambda observations: np.zeros((len(observations), 3), dtype=np.float32))

    source = block("test:evaluate", PAGES["training.md"])
    played = source.replace("episodes=50", "episodes=1, longest=3").replace(
        "options=", "episodes=5, longest=3, options="
    )
    exec(played, {"agent": Still(), "make_cube": lambda: gymnasium.make("Hopper-v5")})
    assert len(re.findall(r"^task_id=\d ", capsys.readouterr().out, flags=re.MULTILINE)) == 5


def test_the_example_of_planners_keeps_its_constraint():
    names = {}
    exec(block("test:planners", PAGES["planners.md"]), names)
    plan, (x, y) = names["plan"], names["plan"].observations[0, :, -1, :2].T
    assert float(plan.scores["violation"]) == 0
    assert ((x - 3).square() + (y - 4).square() >= 0.3**2).all()


def test_the_examples_of_loading_data_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("dfplan.data.features._FUNCTIONS", {})
    states, ends = np.arange(70.0).reshape(10, 7), np.arange(10) == 9
    np.savez("robot.npz", observations=states, actions=states[:, :3], terminals=ends)
    arrays = {"states": states, "actions": states[:, :3], "rewards": ends, "falls": ends, "ends": ends}
    names = {"np": np, **arrays}
    exec(block("test:load", PAGES["training.md"]), names)
    assert names["data"].terminations.tolist() == ends.tolist()
    exec(block("test:features", PAGES["training.md"]), names)
    assert names["data"].observations.shape == (9, 10) and names["data"].features.goal_columns == (3, 4, 5)


def test_the_agent_example_joins_the_table(tmp_path):
    (tmp_path / "my_agent.py").write_text(block("test:agent"))
    words = next(command for command in commands() if "my_agent:make" in command)[1:]
    words += ["--episodes", "2", "--threads", "1", "--output", "out"]
    done = subprocess.run([sys.executable, *words], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "my_agent:make" in (tmp_path / "out" / "maze2d-large" / "table.md").read_text()


def test_the_citation_is_whole():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert {"cff-version", "message", "title", "authors"} <= citation.keys()  # what the format demands
    assert citation["version"] == dfplan.__version__ and citation["license"] == "MIT"
    paper = citation["preferred-citation"]
    assert {"type", "title", "authors"} <= paper.keys()
    assert paper["title"].startswith("Diffusion Forcing") and paper["year"] == 2024 and "2407.01392" in paper["url"]
    assert [author["family-names"] for author in paper["authors"]][::5] == ["Chen", "Sitzmann"]
    assert f"## {dfplan.__version__}\n" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
