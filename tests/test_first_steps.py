"""The examples of docs/first-steps.md run, with fewer episodes."""

import re
from pathlib import Path

import pytest

PAGE = (Path(__file__).parents[1] / "docs" / "first-steps.md").read_text(encoding="utf-8")
EXAMPLES = dict(re.findall(r"^<!-- test:(\w+) -->\n```python\n(.*?)^```$", PAGE, flags=re.MULTILINE | re.DOTALL))


def run(name, fewer="", than=""):
    assert not fewer or EXAMPLES[name].count(than) == 1
    names = {}
    exec(EXAMPLES[name].replace(than, fewer), names)
    return names


def test_the_page_has_no_other_example():
    assert list(EXAMPLES) == ["plan", "cost", "streaming", "row", "agent"] and PAGE.count("```python") == len(EXAMPLES)


def test_a_plan(capsys):
    names = run("plan")
    assert names["path"][0].tolist() == [3, 1] and names["path"][-1].tolist() == pytest.approx([1, 1], abs=1e-3)
    first, *_, last = capsys.readouterr().out.splitlines()
    assert first.startswith("[0, ") and max(eval(first)) > 0 and set(eval(last)) == {0}


def test_a_cost_of_your_own():
    names = run("cost")
    plain, guided = (float(names["far_down"](names[name].observations[:, :, -1])) for name in ("plain", "guided"))
    assert guided < plain - 1


def test_streaming_control(capsys):
    names = run("streaming", "range(30)", "range(300)")
    assert (
        len(names["seconds"]) == 30 and names["agent"]._alive is not None and "ms a decision" in capsys.readouterr().out
    )


def test_a_row_of_the_table_again():
    names = run("row", "cell.seeds[:1]", "cell.seeds[:5]")
    assert names["episodes"].seeds == names["cell"].seeds[:1] and names["episodes"].success == names["cell"].success[:1]


def test_an_agent_of_your_own(capsys):
    run("agent", "episodes=2", "episodes=50")
    assert "success" in capsys.readouterr().out
