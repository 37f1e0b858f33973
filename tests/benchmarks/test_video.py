import numpy as np
import pytest
from every_agent import trajectory_model
from PIL import Image

from dfplan.benchmarks import play, video
from dfplan.benchmarks.suites import ogbench
from dfplan.envs.registry import find

UMAZE = find("maze2d-umaze")


@pytest.fixture
def agent(monkeypatch):
    agent = trajectory_model(horizons=1, replan_every=50, goal="known", scale=0.0, futures=0)
    monkeypatch.setattr(play, "build", lambda wanted: agent)
    monkeypatch.setattr(video, "MOST_FRAMES", 10)
    return agent


def test_an_episode_is_filmed_with_its_plan(agent, tmp_path, capsys):
    path = tmp_path / "film.gif"
    assert video.main(["--env", "maze2d-umaze", "--side", "120", "--output", str(path)]) == 0
    said = capsys.readouterr().out
    with Image.open(path) as film:
        assert film.size == (120, 120 + video.FOOTER) and film.n_frames == 11 and "11 frames" in said
    assert agent.followed().shape[1] == 4 and np.isfinite(agent.followed()).all()


def test_the_seeds_are_played_on_to_an_end_of_the_kind_asked_for(agent, tmp_path, capsys, monkeypatch):
    played, filmed = [], []

    def ending(agent, where, seed):
        played.append(seed)
        return "success" if seed == 5 else "failure"

    def film(agent, where, env, seed, side):
        filmed.append(seed)
        return [np.zeros((8, 8, 3), np.uint8)] * 2, seed == 5

    monkeypatch.setattr(video, "ending", ending)
    monkeypatch.setattr(video, "film", film)
    words = ["--env", "maze2d-umaze", "--seed", "3", "--output", str(tmp_path / "a.gif"), "--until"]
    assert video.main([*words, "success"]) == 0 and (played, filmed) == ([3, 4, 5], [5])
    monkeypatch.setattr(video, "MOST_EPISODES", 1)
    assert video.main([*words, "success"]) == 2 and "ends in success" in capsys.readouterr().err


def test_an_episode_ends_as_its_film_does(agent):
    frames, success = video.film(agent, UMAZE, UMAZE.make(), 1, 40)
    assert video.ending(agent, UMAZE, 1) == ("success" if success else "failure") and len(frames) == 11


def test_a_plan_is_drawn_in_its_colors():
    plans = {"one": np.array([[5.0, 5.0], [35.0, 5.0]]), "two": np.array([[5.0, 30.0], [35.0, 30.0]])}
    shown = video.drawn(np.zeros((40, 40, 3), np.uint8), plans, "text", 80)
    assert shown.shape == (80 + video.FOOTER, 80, 3)
    for color, row in zip(video.COLORS, (10, 60), strict=False):
        assert np.abs(shown[row, 40].astype(int) - color).max() < 60 and shown[row + 15, 40].max() == 0


def test_places_of_cubes_are_those_that_the_features_have():
    rows = np.arange(2.0 * (19 + 9)).reshape(2, -1)
    (effector, cube), seen = ogbench.places(find("cube-single"), ogbench.cubes(rows)).values(), rows / 10
    np.testing.assert_allclose(effector, seen[:, 12:15] + ogbench.MIDDLE)
    np.testing.assert_allclose(cube, seen[:, 19:22] + ogbench.MIDDLE)


def test_what_cannot_be_filmed_is_refused(capsys, tmp_path):
    assert video.main(["--output", "film.mp4"]) == 2 and "a name that ends in .gif" in capsys.readouterr().err
    assert video.main(["--side", "5"]) == 2 and "a side of 32..2048" in capsys.readouterr().err
    assert video.main(["--env", "maze2d-umaze", "--agent", "nobody"]) == 2 and "nobody" in capsys.readouterr().err
