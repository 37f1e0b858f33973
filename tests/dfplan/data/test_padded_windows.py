import numpy as np
import pytest
from numbered_episodes import numbered

from dfplan.data.padded_windows import PaddedWindows


def window(lengths, last, episode, step, tokens, stride, history):
    """A window by its definition: (rows of observations, rows of actions, valid)."""
    begin, observed = sum(lengths[:episode]), range(lengths[episode] + last)
    rows = [step + (i - history * stride) for i in range((tokens - 1) * stride + 1)]
    seen = [(episode, min(max(row, 0), observed[-1])) for row in rows]
    taken = [begin + min(max(row, 0), lengths[episode] - 1) for row in rows]
    valid = [rows[0] in observed]
    for token in range(1, tokens):
        steps = rows[(token - 1) * stride : token * stride]
        valid.append(all(0 <= row < lengths[episode] for row in steps) and rows[token * stride] in observed)
    return seen, taken, valid


@pytest.mark.parametrize("last", [True, False])
@pytest.mark.parametrize("lengths", [[7], [3, 8, 1, 5], [1, 1, 2]])
@pytest.mark.parametrize(("tokens", "stride", "history"), [(1, 1, 0), (3, 2, 0), (4, 3, 1), (3, 1, 2), (5, 4, 4)])
def test_windows_are_those_of_the_definition_at_every_step_that_is_followed(lengths, last, tokens, stride, history):
    windows = PaddedWindows(numbered(lengths, last), tokens, stride, history)
    places = [(e, t) for e, n in enumerate(lengths) for t in range(n if last else n - 1)]
    observations, actions, valid, now = windows.gather(np.arange(len(windows)))
    assert now.tolist() == [sum(lengths[:e]) + t for e, t in places]
    assert observations.shape == (len(places), (tokens - 1) * stride + 1, 2) and valid.shape == (len(places), tokens)
    for i, (episode, step) in enumerate(places):
        seen, taken, whole = window(lengths, last, episode, step, tokens, stride, history)
        np.testing.assert_array_equal(observations[i], seen)
        np.testing.assert_array_equal(actions[i, :, 0], taken)
        assert valid[i].tolist() == whole
    assert valid[:, history].all() or history  # now is recorded; a token of the past may begin before the record


def test_an_episode_shorter_than_a_window_and_its_end_are_learned_too():
    windows = PaddedWindows(numbered([5, 50]), tokens=11, stride=5)
    batch = windows.sample(np.random.default_rng(0), 4000)
    drawn, counts = np.unique(batch.now, return_counts=True)
    assert drawn.tolist() == list(range(55)) and counts.min() > 30  # 73 expected each, deviation 8.5
    assert batch.valid[batch.now == 0].tolist()[0] == [True, True] + [False] * 9
    assert batch.observations.dtype == np.float32 and batch.observations.flags.writeable
    again = windows.sample(np.random.default_rng(0), 4000)
    np.testing.assert_array_equal(again.observations, batch.observations)


def test_windows_that_cannot_be_are_refused():
    for tokens, stride, history in ((0, 1, 0), (1, 0, 0), (2, 1, 2), (2, 1, -1)):
        with pytest.raises(ValueError, match=rf"history from 0 to tokens - 1, not {tokens}, {stride} and {history}\."):
            PaddedWindows(numbered([4]), tokens, stride, history)
    with pytest.raises(ValueError, match=r"numbered: no step is followed by an observation\."):
        PaddedWindows(numbered([1, 1], last=False), 2, 1)
    for number in (-1, 4):
        with pytest.raises(IndexError, match=r"0\.\.3"):
            PaddedWindows(numbered([4]), 2, 1).gather(np.array([number]))
