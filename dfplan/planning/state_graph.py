"""A graph of recorded states, to plan by search, without denoising.

Recorded observations are put into clusters. An edge leads from a cluster to one that was entered next, and takes as many steps
as that took on average. The fastest way between two states is a shortest path, stitched from parts of several episodes.
Eysenbach et al. 2019, "Search on the Replay Buffer", take distances from a learned value as edges instead.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.cluster.vq import kmeans2
from scipy.sparse import csr_array
from scipy.sparse.csgraph import dijkstra
from scipy.spatial import KDTree
from torch import Tensor, nn

from dfplan.data.trajectories import IntArray, Trajectories

SAMPLED, ROUNDS = 60_000, 8
"""Observations that clusters are made of, and rounds of k-means."""
SEEN = 2
"""How often an edge must have been recorded."""
NEAREST = 8
"""How many clusters nearest to a start a way may begin in, and how many nearest to a goal it may end in."""
APART = 30.0
"""Steps that are added for each normalized unit from the start to a way's first cluster, and from its last one to the goal."""
FAR = 1e4
"""Where clusters are that hold no observation, in normalized units."""
TINY = 1e-6
"""Added to costs: a sparse matrix has no edges of cost 0."""


@dataclass(frozen=True)
class Way:
    """A way through the graph."""

    observations: NDArray[np.float32]
    """(N, observation_dim) normalized centers of the clusters on the way, none if there is no way."""
    times: NDArray[np.float32]
    """(N,) steps after the first at which they are reached."""


class StateGraph(nn.Module):
    """Clusters of normalized observations and the times between them. All tables are buffers; `fit` makes them of data."""

    centers: Tensor
    """(V, observation_dim)."""
    following: Tensor
    """(V, N) int64: clusters that were entered next, the most frequent first; -1 where there are fewer."""
    steps: Tensor
    """(V, N) mean number of steps until then."""

    def __init__(self, observation_dim: int, clusters: int, neighbors: int):
        super().__init__()
        self.register_buffer("centers", torch.zeros(clusters, observation_dim))
        self.register_buffer("following", torch.full((clusters, neighbors), -1, dtype=torch.int64))
        self.register_buffer("steps", torch.zeros(clusters, neighbors))

    def fit(self, observations: NDArray[np.float32], data: Trajectories) -> None:
        """Learn the graph from the normalized observations (steps, observation_dim) of these data.

        Where there are fewer observations than clusters, each is one, and the others are far from everything.
        """
        V, N = self.following.shape
        rng = np.random.default_rng(0)
        sample = observations[rng.choice(len(observations), min(SAMPLED, len(observations)), replace=False)]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of clusters without observations, which do no harm
            found, _ = kmeans2(sample, sample[:V].copy(), iter=ROUNDS, minit="matrix")
        centers = np.full((V, observations.shape[1]), FAR, np.float32)
        centers[: len(found)] = found
        before, after, steps = _entries(KDTree(centers).query(observations)[1], data.episode_starts)
        pairs, index, count = np.unique(before * V + after, return_inverse=True, return_counts=True)
        mean = np.bincount(index, steps) / count
        following, times = np.full((V, N), -1), np.zeros((V, N))
        filled = np.zeros(V, dtype=np.int64)
        for pair in np.argsort(-count, kind="stable"):
            u, v = divmod(int(pairs[pair]), V)
            if count[pair] >= SEEN and filled[u] < N:
                following[u, filled[u]], times[u, filled[u]] = v, mean[pair]
                filled[u] += 1
        self.centers = torch.as_tensor(centers, dtype=torch.float32)
        self.following, self.steps = torch.as_tensor(following), torch.as_tensor(times, dtype=torch.float32)

    def ways(self, starts: Tensor, goals: Tensor, columns: Sequence[int]) -> list[Way]:
        """The fastest ways from starts (B, observation_dim) to goals (B, G) in these G columns, all normalized."""
        centers = self.centers.cpu().numpy()
        near = min(NEAREST, len(centers))
        around = KDTree(centers), KDTree(centers[:, list(columns)])
        first, last = (
            [part.reshape(len(points), near) for part in tree.query(points.cpu().numpy(), near)]
            for tree, points in zip(around, (starts, goals), strict=True)
        )
        found, searched = [], {}
        for row in range(len(starts)):
            key = tuple(goals[row].tolist())
            if key not in searched:
                searched[key] = self._search(last[1][row], APART * last[0][row])
            steps, onwards = searched[key]
            begin = first[1][row, np.argmin(steps[first[1][row]] + APART * first[0][row])]
            found.append(_way(centers, steps, onwards, int(begin)))
        return found

    def _search(self, ends: IntArray, cost: NDArray[np.float64]) -> tuple[NDArray[np.float64], IntArray]:
        """From each cluster (V,): the steps to one of the `ends` (N,) with its `cost` (N,), and the cluster that comes next."""
        following, steps = self.following.cpu().numpy(), self.steps.cpu().numpy().astype(np.float64)
        V, there = len(following), following >= 0
        before = np.broadcast_to(np.arange(V)[:, None], following.shape)[there]
        # The goal is one more vertex. The graph is searched backwards from there.
        weights = np.concatenate([steps[there], cost + TINY])
        pairs = np.concatenate([following[there], np.full(len(ends), V)]), np.concatenate([before, ends])
        backwards = csr_array((weights, pairs), shape=(V + 1, V + 1))
        found, onwards = dijkstra(backwards, indices=V, return_predecessors=True)
        return found[:V], np.where(onwards[:V] == V, -1, onwards[:V])


def _entries(clusters: IntArray, starts: IntArray) -> tuple[IntArray, IntArray, IntArray]:
    """Of the clusters (steps,) of observations, in episodes that begin at `starts`: each cluster that was entered within an
    episode, the one that was entered next, and the steps between."""
    begins = np.zeros(len(clusters), dtype=np.int64)
    begins[starts] = 1
    entered = np.flatnonzero(np.r_[True, (np.diff(clusters) != 0) | (begins[1:] > 0)])
    episode = np.cumsum(begins)[entered]
    same = episode[1:] == episode[:-1]
    return clusters[entered[:-1]][same], clusters[entered[1:]][same], np.diff(entered)[same]


def _way(centers: NDArray[np.float32], steps: NDArray[np.float64], onwards: IntArray, begin: int) -> Way:
    """The way from the cluster `begin` on, given the steps that are left from each cluster, and the cluster that comes next."""
    if not np.isfinite(steps[begin]):
        return Way(centers[:0], np.zeros(0, np.float32))
    way = [begin]
    while onwards[way[-1]] >= 0:
        way.append(int(onwards[way[-1]]))
    return Way(centers[way], (steps[begin] - steps[way]).astype(np.float32))
