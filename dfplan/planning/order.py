"""The order in which several things come to their goal, where some lock others: the way through recorded configurations.

What was recorded is a graph of configurations (`dfplan.data.configurations`): an edge for each change of a thing from one kind
of place to another. Of a goal that takes several changes, such as unlocking a drawer, opening it and putting a cube in, the
next one on the way is asked for alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from scipy.sparse.csgraph import shortest_path
from torch import Tensor, nn

from dfplan.data.configurations import Changes, at_rest, changes, cluster, kinds_in_each, nearest
from dfplan.data.trajectories import FloatArray, IntArray, Trajectories

MOVES = 0.02
"""Share of the steps in a configuration in which a thing moves at least, if it is free to move there."""
REST, ARRIVAL = (0.01, 0.99), (0.1, 0.5, 0.9)
"""Quantiles of the places of one kind: where things rest, and where they came to rest from another kind."""


class Order(nn.Module):
    """Which thing is asked for next, and for which place: of goals of several things, each with kinds of places.

    There are N configurations, the products of the `kinds` of the things, each of which has as many goal columns as `groups`
    says. All tables are buffers, in recorded units; `fit` makes them of recorded data.
    """

    centers: Tensor
    """(N, G) places of each configuration's kinds."""
    rests: Tensor
    """(2, N, G) the lowest and the highest place where things of these kinds rest."""
    arrivals: Tensor
    """(3, N, G) low, middle and high: where things came to rest that had been of another kind."""
    free: Tensor
    """(N, things) whether a thing moves in a configuration."""
    follows: Tensor
    """(N, N) int64: the configuration that comes next on the way from one to another, -1 where there is none."""

    def __init__(self, groups: Sequence[int], kinds: Sequence[int]):
        super().__init__()
        self.groups, self.kinds = tuple(groups), tuple(kinds)
        N, G = int(np.prod(kinds)), sum(groups)
        self.register_buffer("centers", torch.zeros(N, G))
        self.register_buffer("rests", torch.zeros(2, N, G))
        self.register_buffer("arrivals", torch.zeros(3, N, G))
        self.register_buffer("free", torch.zeros(N, len(groups), dtype=torch.bool))
        self.register_buffer("follows", torch.full((N, N), -1, dtype=torch.int64))
        self._kinds = kinds_in_each(self.kinds)
        ends = np.cumsum(self.groups)
        self._columns = [slice(end - size, end) for end, size in zip(ends, self.groups, strict=True)]

    def fit(self, data: Trajectories, columns: Sequence[int]) -> None:
        """Learn kinds, what follows what, and where things arrive, from the goal `columns` (G,) of observations.

        The way from one configuration to another has few changes, and likely ones: each costs 1 and minus the logarithm of its
        share among those that were recorded from there. Raises ValueError for a thing that is seldom at rest.
        """
        centers = cluster(data, columns, self.groups, self.kinds)
        found = changes(data, columns, self.groups, centers)
        values, still = data.observations[:, list(columns)], at_rest(data, columns, self.groups)
        number = nearest(values, centers)
        rests, arrivals = (np.tile(centers, (count, 1, 1)) for count in (2, 3))
        for thing, kind, rows in self._of_each_kind():
            part = self._columns[thing]
            there = still[:, thing] & (self._kinds[number, thing] == kind)
            if there.any():
                rests[:, rows, part] = np.quantile(values[there, part], REST, axis=0)[:, None]
            reached = self._arrived(found, thing, kind)
            last = values[reached if len(reached) else np.flatnonzero(there), part]
            if len(last):
                arrivals[:, rows, part] = np.quantile(last, ARRIVAL, axis=0)[:, None]
        seen = np.maximum(np.bincount(number, minlength=len(centers)), 1)
        moves = [np.bincount(number[~still[:, thing]], minlength=len(centers)) for thing in range(len(self.groups))]
        counts = np.zeros((len(centers), len(centers)))
        np.add.at(counts, (found.before, found.after), 1)
        share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
        cost = np.where(counts > 0, 1 - np.log(np.where(counts > 0, share, 1)), 0)
        backwards = np.ascontiguousarray(cost.T)
        _, before = shortest_path(backwards, method="D", return_predecessors=True)
        self.centers, self.rests, self.arrivals = (
            torch.as_tensor(table, dtype=torch.float32) for table in (centers, rests, arrivals)
        )
        self.free = torch.as_tensor(np.stack(moves, axis=1) >= MOVES * seen[:, None])
        self.follows = torch.as_tensor(np.maximum(before.T, -1), dtype=torch.int64)

    def next_goal(self, goal: Tensor, present: Tensor, within: Sequence[float]) -> Tensor:
        """Of goals (B, G) at present places (B, G) what is next: NaN in the columns of all things but those.

        A thing is there if its distance from its goal is at most its entry of `within`. In this order: a thing that is far from
        where its kind rests, for it is in the gripper; a thing that is free, and not there though no change on the way moves
        it; the next change on the way to the goal's configuration; a change that frees a thing that is not there. Where nothing
        is left, or no way was recorded, a goal stays whole.
        """
        pairs = zip(goal.detach().cpu().numpy(), present.detach().cpu().numpy(), strict=True)
        rows = np.stack([self._next(wanted, here, within) for wanted, here in pairs])
        return torch.as_tensor(rows, dtype=goal.dtype, device=goal.device)

    def _next(self, goal: FloatArray, present: FloatArray, within: Sequence[float]) -> FloatArray:
        centers, free, things = self.centers.cpu().numpy(), self.free.cpu().numpy(), range(len(self.groups))
        here, there = int(nearest(present, centers)), int(nearest(goal, centers))
        low, high = self.rests.cpu().numpy()[:, here]
        beyond, apart = np.maximum(low - present, present - high), goal - present
        away = [np.linalg.norm(apart[self._columns[thing]]) > within[thing] for thing in things]
        held = [(beyond[self._columns[thing]] > within[thing]).any() for thing in things]
        for thing in things:
            if held[thing] and away[thing]:
                return self._asked(goal, [thing], there, there)
        way = self._way(here, there)
        moved = (self._kinds[[here, *way]] != self._kinds[here]).any(axis=0)
        left = [thing for thing in things if away[thing] and not moved[thing] and self._arrives(goal, thing, there)]
        for thing in left:
            if free[here, thing]:
                return self._asked(goal, [thing], there, there)
        if left and not way:
            way = self._to_free(here, left[0])
        if not way:
            return goal
        then = way[0]
        changed = [thing for thing in things if self._kinds[here, thing] != self._kinds[then, thing]]
        return self._asked(goal, changed, then, there)

    def _asked(self, goal: FloatArray, things: Sequence[int], then: int, there: int) -> FloatArray:
        """The goal of these things alone in the configuration `then`: their own, if they are of its kind and arrive at such
        places, else where things of that kind mostly arrive."""
        asked = np.full_like(goal, np.nan)
        usual = self.arrivals[1, then].cpu().numpy()
        for thing in things:
            part = self._columns[thing]
            own = self._kinds[then, thing] == self._kinds[there, thing] and self._arrives(goal, thing, then)
            asked[part] = goal[part] if own else usual[part]
        return asked

    def _arrives(self, goal: FloatArray, thing: int, number: int) -> bool:
        """Whether the thing's goal is among the places where it arrives in a configuration, or not far from them."""
        part = self._columns[thing]
        low, _, high = self.arrivals.cpu().numpy()[:, number, part]
        slack = high - low + 1e-3
        return bool(((goal[part] >= low - slack) & (goal[part] <= high + slack)).all())

    def _to_free(self, here: int, thing: int) -> list[int]:
        """The shortest way to a configuration in which the thing is free, and of its present kind; [] where there is none."""
        free = self.free[:, thing].cpu().numpy() & (self._kinds[:, thing] == self._kinds[here, thing])
        ways = [self._way(here, int(other)) for other in np.flatnonzero(free)]
        return min(filter(None, ways), key=len, default=[])

    def _way(self, here: int, there: int) -> list[int]:
        """The configurations on the way, the last one included; [] where there is none."""
        way: list[int] = []
        while here != there:
            here = int(self.follows[here, there])
            if here < 0:
                return []
            way.append(here)
        return way

    def _of_each_kind(self) -> Iterator[tuple[int, int, IntArray]]:
        """Each thing, each of its kinds, and the configurations in which it is of that kind."""
        for thing, count in enumerate(self.kinds):
            for kind in range(count):
                yield thing, kind, np.flatnonzero(self._kinds[:, thing] == kind)

    def _arrived(self, found: Changes, thing: int, kind: int) -> IntArray:
        """The steps in which the thing had come to rest in this kind, from another one."""
        before, after = (self._kinds[numbers, thing] for numbers in (found.before, found.after))
        return found.reached[(before != kind) & (after == kind)]
