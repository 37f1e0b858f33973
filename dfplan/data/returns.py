"""What is to be gained: whether anything is, sums of rewards, and their pace, which does not shrink towards an end."""

import numpy as np
from numpy.typing import NDArray
from scipy.signal import lfilter

from dfplan.data.trajectories import FloatArray, Trajectories, rewarding, stops


def discount_of(longest: int) -> float:
    """g = 1 - 1 / longest: rewards count for about as many steps as the longest recorded episode has."""
    return 1 - 1 / longest


def require_rewards(data: Trajectories, learner: str) -> None:
    """Raise ValueError, with one sentence, if nothing is to be gained."""
    if not rewarding(data):
        raise ValueError(f"{learner} learns from rewards, and those of {data.name} are all {data.rewards[0]:g}")


def discounted_sums(data: Trajectories, g: float, steps: int | None = None) -> NDArray[np.float64]:
    """(N,): sum_i g^i r_{t+i} from each step on, to where the task terminates or the record ends, or over so many `steps`."""
    stop = stops(data)
    ends = np.unique(stop)  # one past the last step of each stretch: an episode, or the part of it up to a termination
    total = np.empty(len(data))
    for begin, end in zip(np.append(0, ends[:-1]), ends, strict=True):
        total[begin:end] = lfilter([1.0], [1.0, -g], data.rewards[begin:end][::-1].astype(np.float64))[::-1]
    if steps is None:
        return total
    later = np.arange(len(data)) + steps
    return total - np.where(later < stop, g**steps * total[np.minimum(later, len(data) - 1)], 0.0)


def returns_to_go(data: Trajectories) -> FloatArray:
    """(N,) float32: the pace of reward from each step on, in reward for each step.

    It is the discounted mean of the rewards that are still to come, with g = `discount_of` the longest episode:

        R_t = sum_i g^i r_{t+i} / sum_i g^i

    Where the record was cut off, both sums end with it: how it would have gone on is not known, and a cut costs nothing.
    Where the task terminates, rewards of 0 follow for ever, so that the lower sum is 1 / (1 - g): an early end costs all
    that could have been gained. A whole episode with return R at the longest length has a pace of about R / longest.
    """
    longest = int((data.episode_ends - data.episode_starts).max())
    g = discount_of(longest)
    stop, total = stops(data), discounted_sums(data, g)
    left = stop - np.arange(len(data))
    weight = np.where(data.terminations[stop - 1], 1 / (1 - g), (1 - g**left) / (1 - g))
    pace: FloatArray = (total / weight).astype(np.float32)
    return pace
