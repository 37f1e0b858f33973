"""Goals of several things, such as blocks: asking for one of them alone, and things that are alike.

A thing has some neighboring columns of the goal: its group. Things that are alike have observation columns that mean the same
of each. Of these the one that is asked for takes the place of the first, so that all examples teach how to bring the first
to its goal; the others are not seen.
"""

from collections.abc import Sequence

import numpy as np

from dfplan.data.trajectories import BoolArray, FloatArray, IntArray

ALONE = 0.9
"""Share of the goals of training that are of one thing alone, of things that are not alike."""
MOVED = 0.1
"""How far a thing has moved at least if it has, in deviations of its columns."""


def one_at_a_time(
    goals: FloatArray,
    present: FloatArray,
    groups: Sequence[int],
    spread: FloatArray,
    rng: np.random.Generator,
    share: float = ALONE,
    together: BoolArray | None = None,
) -> tuple[FloatArray, IntArray]:
    """Goals (B, G) of which a `share` is of one thing, with NaN in the columns of all others, and which thing it is (B,).

    It is one of those that are somewhere else at `present` (B, G), in units of `spread` (G,), where there are any. Of goals
    that stay whole it is 0. Things that change `together` (B, things) are one: where that thing is among them, all of them that
    are somewhere else are kept.
    """
    starts = np.append(0, np.cumsum(groups)[:-1])
    away = np.add.reduceat(((goals - present) / spread) ** 2, starts, axis=1) > MOVED**2
    likely = away + 1e-6  # where nothing moves, all are equally likely
    likely = np.cumsum(likely / likely.sum(axis=1, keepdims=True), axis=1)
    which = (rng.random((len(goals), 1)) > likely[:, :-1]).sum(axis=1)
    alone = rng.random(len(goals)) < share
    asked = np.arange(len(groups)) == which[:, None]
    if together is not None:
        asked |= (asked & together).any(axis=1, keepdims=True) & together & away
    other = alone[:, None] & ~np.repeat(asked, groups, axis=1)
    return np.where(other, np.float32(np.nan), goals), np.where(alone, which, 0)


def exchanges(alike: Sequence[Sequence[int]], columns: Sequence[int]) -> IntArray:
    """(things, columns): for each thing, from which place in `columns` each column comes if it and the first change places.

    `alike` are the observation columns of each thing, in one order. The same exchange twice changes nothing.
    """
    place = {column: number for number, column in enumerate(columns)}
    table = np.tile(np.arange(len(columns)), (len(alike), 1))
    for row, thing in zip(table, alike, strict=True):
        for own, first in zip(thing, alike[0], strict=True):
            if own in place:
                row[place[own]], row[place[first]] = place[first], place[own]
    return table
