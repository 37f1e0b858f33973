import numpy as np

from dfplan.data.padded_windows import PaddedWindows
from dfplan.data.places import Evenly, cover
from dfplan.data.trajectories import Trajectories

SELDOM = np.array([[5.0, 0.0]] * 10 + [[0.0, 1.0]] * 990, np.float32)


def test_the_places_are_as_far_apart_as_they_can_be():
    line = np.linspace(0, 1, 1001, dtype=np.float32)[:, None]
    gaps = np.diff(np.sort(cover(line, 9)[:, 0]))
    assert len(gaps) == 8 and gaps.min() > 0.05 and gaps.max() < 0.2
    assert len(cover(np.repeat(line[:3], 5, axis=0), 9)) == 3  # no more than there are


def test_a_place_that_was_seldom_visited_is_drawn_as_often_as_another():
    rows = Evenly(SELDOM)(np.random.default_rng(0), 2000)
    assert 0.45 < (rows < 10).mean() < 0.55 and len(np.unique(rows[rows < 10])) == 10


def test_windows_begin_at_all_places_equally_often():
    data = Trajectories(
        SELDOM, np.zeros((1000, 1), np.float32), np.zeros(1000, np.float32), np.arange(1000)[::5], "seldom"
    )
    batch = PaddedWindows(data, 2, 1, evenly=(0,)).sample(np.random.default_rng(0), 1000)
    assert 0.4 < (batch.observations[:, 0, 0] > 1).mean() < 0.6
    assert (batch.now % 5 < 4).all() and batch.valid.all()
