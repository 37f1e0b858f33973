"""The viewer's addresses: what the page is given, and what is refused with a sentence."""

import json
import socket
import threading
from itertools import pairwise

import numpy as np
import pytest
import torch

from dfplan.viewer.questions import MOST_CANDIDATES, SLIDERS, Question
from dfplan.viewer.regions import violation
from dfplan.viewer.scene import SHOWN

pytest.importorskip("starlette", reason="the viewer's packages are not installed: pip install -e '.[viewer]'")
from starlette.testclient import TestClient

from dfplan.viewer import page, robots
from dfplan.viewer.__main__ import LOOPBACK, is_loopback, main

QUESTION = {"start": [3.0, 1.0], "goal": [1.0, 1.0], "options": {}, "forbidden": [], "seed": 3}


@pytest.fixture(scope="module")
def client(scene):
    with TestClient(page.application(scene, hosts=LOOPBACK), base_url="http://127.0.0.1") as client:
        yield client


def test_the_page_is_one_file_that_loads_nothing_from_elsewhere(client):
    answer = client.get("/")
    assert answer.status_code == 200 and "default-src 'none'" in answer.headers["content-security-policy"]
    assert "<canvas" in answer.text and "http://" not in answer.text and "https://" not in answer.text


def test_a_scene_has_its_maze_and_the_agents_own_settings(client, scene):
    shown = client.get("/scene").json()
    assert shown["rows"] == list(scene.task.layout.rows) and len(shown["walls"]) == int(scene.task.layout.walls.sum())
    settings = {slider["option"]: slider["value"] for slider in shown["sliders"]}
    assert settings == {option: getattr(scene.agent.config.plan, option) for option in SHOWN}
    assert {slider.option for slider in SLIDERS} >= {*SHOWN, *robots.SHOWN} and shown["streaming"] is False


def test_a_plan_has_a_row_of_levels_for_each_row_of_points(client):
    plan = client.post("/plan", json=QUESTION).json()
    (points,), levels = np.array(plan["tracks"]), np.array(plan["levels"])
    assert points.shape == (*levels.shape, 2) and len(levels) > 2
    assert (levels[0, 1:-1] == 1).all() and (levels[-1] == 0).all() and (np.diff(levels, axis=0) <= 0).all()
    assert points[-1, 0].tolist() == QUESTION["start"]
    assert points[-1, -1] == pytest.approx(QUESTION["goal"], abs=2e-3)
    assert client.post("/plan", json=QUESTION).json() == plan
    assert client.post("/plan", json=QUESTION | {"seed": 4}).json() != plan


def test_sliders_change_the_plan(client):
    def rows(slope):
        return len(client.post("/plan", json=QUESTION | {"options": {"uncertainty": slope}}).json()["levels"])

    assert rows(0) < rows(2)


def test_an_episode_comes_in_parts_that_join(client, scene):
    with client.stream("POST", "/drive", json=QUESTION) as answer:
        parts = [json.loads(line) for line in answer.iter_lines()]
    assert parts[0]["path"][0] == QUESTION["start"] and parts[0]["plan"][0][0] == QUESTION["start"]
    for part, following in pairwise(parts):
        assert part["path"][-1] == following["path"][0] and part["step"] < following["step"]
    assert parts[-1]["step"] == sum(len(part["path"]) - 1 for part in parts) <= scene.task.max_episode_steps


def test_whether_a_plan_stays_alive_is_asked_for(scene):
    streams = [Question.read(QUESTION | {"streaming": given}).agent(scene.agent) for given in (True, False, None)]
    assert [agent.config.streaming for agent in streams] == [True, False, False]
    parts = zip(range(2), scene.drive(Question.read(QUESTION | {"streaming": True})), strict=False)
    assert [part["step"] for _, part in parts] == [20, 40]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"start": None}, "has a start and a goal"),
        ({"start": [0.0, 0.0]}, "the start (0.0, 0.0) lies in a wall"),
        ({"goal": [50.0, 1.0]}, "the goal (50.0, 1.0) lies in a wall"),
        ({"goal": [1.0]}, "question.goal"),
        ({"options": {"width": 3}}, "there is no slider 'width'"),
        ({"options": {"horizons": 1000}}, "horizons lies in 1..40, got 1000"),
        ({"options": {"horizons": 40, "samples": 8, "futures": 4, "scale": 1}}, f"at most {MOST_CANDIDATES}"),
        ({"seed": -1}, "question.seed"),
        ({"forbidden": [[1, 2]]}, "question.forbidden"),
        ({"more": 1}, "question.more is unknown"),
    ],
)
@pytest.mark.parametrize("address", ["/plan", "/drive"])
def test_a_question_that_cannot_be_answered_gets_a_sentence(client, address, change, sentence):
    answer = client.post(address, json=QUESTION | change)
    assert answer.status_code == 400 and sentence in answer.json()["error"]


@pytest.mark.parametrize("body", [b"", b"{", b"[" * 10_000, b"NaN", b"\xff", b" " * (page.LONGEST_BODY + 1)])
def test_a_body_that_is_no_question_gets_a_sentence(client, body):
    answer = client.post("/plan", content=body)
    assert answer.status_code == 400 and "question" in answer.json()["error"]


def test_other_hosts_are_refused(client):
    assert client.get("/scene", headers={"host": "elsewhere.example"}).status_code == 400
    assert is_loopback("127.0.0.1") and is_loopback("localhost") and not is_loopback("0.0.0.0")


def test_a_slow_plan_does_not_block_another_request(scene):
    """With two threads a second plan is made while the first one waits."""
    began, go_on = threading.Event(), threading.Event()

    class Slow:
        def to_json(self):
            return {}

        def plan(self, question):
            if question.seed == 1:
                began.set()
                assert go_on.wait(60)
            return {"seed": question.seed}

    answers = []
    with TestClient(page.application(Slow())) as client:
        slow = threading.Thread(target=lambda: answers.append(client.post("/plan", json=QUESTION | {"seed": 1}).json()))
        slow.start()
        try:
            assert began.wait(60)
            assert client.post("/plan", json=QUESTION | {"seed": 2}).json() == {"seed": 2} and not answers
        finally:
            go_on.set()
            slow.join()
    assert answers == [{"seed": 1}]


def test_more_requests_than_can_wait_are_refused(scene, monkeypatch):
    monkeypatch.setattr(page, "MOST_WAITING", 0)
    with TestClient(page.application(scene)) as client:
        answer = client.post("/plan", json=QUESTION)
    assert answer.status_code == 503 and "try again" in answer.json()["error"]


def test_the_command_refuses_what_cannot_be_shown(capsys):
    assert main(["--env", "hopper-mixed-own"]) == 2 and "have no places to be shown" in capsys.readouterr().err
    assert main(["--port", "70000"]) == 2 and "port lies in 0..65535" in capsys.readouterr().err


def test_a_port_that_is_taken_is_named(capsys):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert main(["--env", "maze2d-umaze", "--port", str(port)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and str(port) in error and error.count("\n") == 1


def test_only_what_lies_in_a_rectangle_violates_it():
    path = torch.tensor([[[0.0, 0.0, 9.0], [1.0, 0.0, 9.0]], [[0.0, 5.0, 9.0], [1.0, 5.0, 9.0]]], requires_grad=True)
    found = violation(path, [(0.4, 0.6, -1.0, 1.0)])  # between the two tokens of the first path
    assert found[0] > 0 and found[1] == 0
    (gradient,) = torch.autograd.grad(found.sum(), path)
    assert gradient[0].abs().sum() > 0 and gradient[1].abs().sum() == 0 and gradient[..., 2].abs().sum() == 0


def test_a_rectangle_becomes_a_constraint():
    asked = Question.read(QUESTION | {"forbidden": [[1, 2, 1, 2]]}).ask
    (constraint,) = asked.constraints
    assert constraint(torch.full((1, 3, 4), 1.5)) > 0 and Question.read(QUESTION).ask.constraints == ()
