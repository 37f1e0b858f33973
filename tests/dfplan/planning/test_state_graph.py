"""A graph of recorded states: its edges and times by hand, and ways that no episode took as a whole."""

import numpy as np
import torch

from dfplan.data.trajectories import Trajectories
from dfplan.planning.state_graph import StateGraph, _entries


def recorded(*episodes):
    """Episodes of places (x, y), as data."""
    lengths = [len(episode) for episode in episodes]
    places = np.concatenate([np.asarray(episode, np.float32) for episode in episodes])
    starts = np.cumsum([0, *lengths[:-1]])
    return Trajectories(
        places, np.zeros((len(places), 1), np.float32), np.zeros(len(places), np.float32), starts, "walks"
    )


def line(begin, end, steps):
    return np.linspace(begin, end, steps + 1)


def fitted(data, clusters, neighbors=8):
    graph = StateGraph(2, clusters, neighbors)
    graph.fit(data.observations, data)
    return graph


def way(graph, start, goal):
    return graph.ways(torch.tensor([start]), torch.tensor([goal]), (0, 1))[0]


def test_entries_are_of_one_episode_each_and_count_the_steps_between():
    clusters, starts = np.array([0, 0, 1, 1, 1, 2, 2, 0, 1]), np.array([0, 6])
    before, after, steps = _entries(clusters, starts)
    assert list(zip(before, after, steps, strict=True)) == [(0, 1, 2), (1, 2, 3), (2, 0, 1), (0, 1, 1)]


def test_a_way_is_stitched_from_episodes_that_meet():
    """From (0, 0) to (0, 4) only by the corner (4, 0), which two kinds of episodes share; directly nobody went."""
    there, up = line((0, 0), (4, 0), 16), line((4, 0), (0, 4), 16)
    graph = fitted(recorded(*[there, up] * 3), clusters=20)
    found = way(graph, (0.0, 0.0), (0.0, 4.0))
    assert np.linalg.norm(found.observations - (4, 0), axis=1).min() < 0.5, "over the corner"
    assert np.allclose(found.observations[-1], (0, 4), atol=0.8) and (np.diff(found.times) > 0).all()
    assert 24 <= found.times[-1] <= 32


def test_the_faster_of_two_ways_is_taken():
    over = np.concatenate([line((0, 0), (2, 2), 30), line((2, 2), (4, 0), 30)[1:]])
    under = np.concatenate([line((0, 0), (2, -2), 10), line((2, -2), (4, 0), 10)[1:]])
    graph = fitted(recorded(*[over, under] * 3), clusters=30)
    found = way(graph, (0.0, 0.0), (4.0, 0.0))
    assert found.observations[:, 1].min() < -1 and found.observations[:, 1].max() < 1


def test_there_is_no_way_against_the_direction_of_the_data():
    graph = fitted(recorded(*[line((0, 0), (8, 0), 40)] * 3), clusters=20)
    assert len(way(graph, (8.0, 0.0), (0.0, 0.0)).observations) == len(way(graph, (8.0, 0.0), (0.0, 0.0)).times) == 0
    assert len(way(graph, (0.0, 0.0), (8.0, 0.0)).observations) > 5


def test_what_was_seen_once_is_no_edge():
    once, often = line((0, 0), (4, 0), 20), line((0, 3), (4, 3), 20)
    graph = fitted(recorded(once, *[often] * 3), clusters=20)
    assert len(way(graph, (0.0, 3.0), (4.0, 3.0)).times) > len(way(graph, (0.0, 0.0), (4.0, 0.0)).times)


def test_with_fewer_observations_than_clusters_each_is_one():
    graph = fitted(recorded(*[line((0, 0), (8, 0), 8)] * 3), clusters=50)
    found = way(graph, (0.0, 0.0), (8.0, 0.0))
    assert found.times.tolist() == list(range(9)) and np.allclose(found.observations, line((0, 0), (8, 0), 8))
