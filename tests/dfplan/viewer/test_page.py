"""The page in a real browser: clicks, a plan that arrives, an episode that is driven, and a refusal that is shown."""

import re
import shutil
import threading
from contextlib import contextmanager

import pytest

from dfplan.agents.loading import from_pretrained
from dfplan.benchmarks.rows import suite_of
from dfplan.envs.registry import find

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
BROWSER = next(filter(None, map(shutil.which, BROWSERS)), None)
INSTALL = "the viewer's packages are not installed: pip install -e '.[test]'"
page_module = pytest.importorskip("dfplan.viewer.page", reason=INSTALL, exc_type=ImportError)
uvicorn = pytest.importorskip("uvicorn", reason=INSTALL)
browsers = pytest.importorskip("playwright.sync_api", reason=INSTALL)
NONE = f"no browser is installed: expected one of {', '.join(BROWSERS)}"
pytestmark = [pytest.mark.slow, pytest.mark.skipif(BROWSER is None, reason=NONE)]
PATIENCE = 60_000
"""Milliseconds that a step may take on a busy machine."""


@contextmanager
def served(scene):
    config = uvicorn.Config(page_module.application(scene), host="127.0.0.1", port=0, log_level="warning")
    socket, server = config.bind_socket(), uvicorn.Server(config)
    thread = threading.Thread(target=server.run, args=([socket],))
    thread.start()
    yield f"http://127.0.0.1:{socket.getsockname()[1]}"
    server.should_exit = True
    thread.join()


@contextmanager
def browsing(address):
    with browsers.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=BROWSER, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page(viewport={"width": 1200, "height": 900})
        page.set_default_timeout(PATIENCE)
        errors = []
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
        page.goto(address)
        yield page, errors
        browser.close()


@pytest.fixture(scope="module")
def address(scene):
    with served(scene) as address:
        yield address


@pytest.fixture
def page(address):
    with browsing(address) as (page, errors):
        page.wait_for_selector("body[data-state=ready]")
        yield page, errors


def click(page, x, y):
    """Click a place in the maze's coordinates."""
    at = page.evaluate(
        "([x, y]) => { const b = bounds(), u = maze.clientWidth / b.columns; return [(y - b.y) * u, (x - b.x) * u] }",
        [x, y],
    )
    page.click("#maze", position={"x": at[0], "y": at[1]})


def test_two_clicks_bring_a_plan_that_is_shown_and_driven(page):
    page, errors = page
    click(page, 3, 1)
    with page.expect_request("**/plan") as asked:
        click(page, 1, 3)
    question = asked.value.post_data_json
    assert question["start"] == pytest.approx([3, 1], abs=0.02) and question["goal"] == pytest.approx([1, 3], abs=0.02)
    page.wait_for_selector("body[data-state=planned]")
    assert "A plan of" in page.inner_text("#status")
    page.wait_for_selector("body[data-playing=false]")
    assert page.evaluate("shownRow === plan.levels.length - 1"), "it is shown to its end"
    before = page.locator("#maze").screenshot()
    page.click("#drive")
    page.wait_for_selector("body[data-state=driven]")
    assert "The goal was" in page.inner_text("#status") and page.locator("#maze").screenshot() != before
    assert errors == []


def test_the_page_says_how_many_frames_of_denoising_it_draws(capsys):
    """`pytest -m slow tests/dfplan/viewer/test_page.py -k frames` shows the number, which depends on the machine."""
    from dfplan.viewer.scene import Scene

    with (
        served(Scene(find("maze2d-large"), from_pretrained("maze2d-large"))) as address,
        browsing(address) as (page, _),
    ):
        page.wait_for_selector("body[data-state=ready]")
        page.click("#plan")
        page.wait_for_selector("body[data-state=planned]")
        page.wait_for_selector("body[data-playing=false]")
        said = page.inner_text("#rowtext")
    row, last, frames = map(int, re.fullmatch(r"(\d+) of (\d+), (\d+) frames a second", said).groups())
    assert row == last > 4 and frames > 0
    with capsys.disabled():
        print(f"{frames} frames of denoising a second")


def test_a_drawn_rectangle_is_asked_for_and_a_wall_is_refused(page):
    page, errors = page
    page.click("[data-tool=forbid]")
    box = page.locator("#maze").bounding_box()
    with page.expect_request("**/plan") as asked:
        page.mouse.move(box["x"] + 40, box["y"] + 40)
        page.mouse.down()
        page.mouse.move(box["x"] + 90, box["y"] + 80)
        page.mouse.up()
    (rectangle,) = asked.value.post_data_json["forbidden"]
    assert rectangle[0] < rectangle[1] and rectangle[2] < rectangle[3]
    page.wait_for_selector("body[data-state=planned]")
    assert errors == []
    page.click("[data-tool=goal]")
    click(page, 2, 2)  # a wall of the umaze
    page.wait_for_selector("body[data-state=refused]")
    assert "lies in a wall" in page.inner_text("#status.wrong")


def test_a_robots_task_is_chosen_and_its_plan_drawn_into_a_picture():
    pytest.importorskip("ogbench", reason="the robots are not installed: pip install -e '.[robots]'")
    suite_of(find("cube-single"))  # it registers the features that weights name
    from dfplan.viewer.robots import RobotScene

    robot = RobotScene(find("cube-single"), from_pretrained("cube-single"))
    with served(robot) as address, browsing(address) as (page, errors):
        page.wait_for_selector("body[data-state=planned], body[data-state=refused]")
        if "OpenGL" in page.inner_text("#status"):
            pytest.skip(page.inner_text("#status"))
        assert page.locator("#tasks button").count() == 5 and not page.is_visible("#tools")
        with page.expect_request("**/plan") as asked:
            page.click("#tasks button:nth-child(2)")
        assert asked.value.post_data_json["task"] == 2 and "start" not in asked.value.post_data_json
        page.wait_for_selector("body[data-state=planned]")
        page.wait_for_selector("body[data-playing=false]")
        page.click("#drive")
        page.wait_for_selector("text=/driving, step [2-9]/")
        assert page.evaluate("driven.pictures[1].plan.length") == 2 and errors == []
