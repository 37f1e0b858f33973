"""Path integral control against the linear quadratic regulator, its costs, and samples that are not finite."""

import numpy as np
import pytest
from scipy.linalg import solve_discrete_are

from dfplan.planning.path_integral import GoalCost, MPPIConfig, euclidean, improve

DT = 0.1
A = np.array([[1.0, DT], [0.0, 1.0]])
B = np.array([[0.0], [DT]])
Q, R = np.eye(2), np.eye(1)


def linear(states, actions):
    """x' = A x + B u; a state (N, 3) is x and the control that led to it, so that a cost of states sees both."""
    path, state = [], states[:, :2]
    for s in range(actions.shape[1]):
        state = state @ A.T + actions[:, s] @ B.T
        path.append(np.concatenate([state, actions[:, s]], axis=1))
    return np.stack(path, axis=1)


def quadratic(states, goals):
    """x^T Q x + u^T R u along a future, Q and R being identities."""
    del goals
    return np.square(states).sum(axis=(-1, -2))


def point(states, actions):
    """A point that goes where it is sent: x' = x + u / 10, states (N, 2)."""
    return states[:, None] + np.cumsum(actions, axis=1) / 10


def test_it_approaches_the_linear_quadratic_regulator():
    P = solve_discrete_are(A, B, Q, R)
    gain = np.linalg.solve(R + B.T @ P @ B, B.T @ P @ A)
    state = np.array([[1.0, 0.0, 0.0]])
    least = P[0, 0] - 1.0  # costs count the states after the controls, not the start
    config = MPPIConfig(samples=1024, controls=40, hold=1, sigma=0.2, temperature=0.3, limit=np.inf, action_dim=1)
    rng, controls, paid = np.random.default_rng(0), np.zeros((1, 40, 1)), 0.0

    def improved(state, controls):
        return improve(linear, quadratic, state, np.zeros((1, 2)), controls, config, rng)[0]

    for _ in range(60):
        controls = improved(state, controls)
    assert controls[0, 0, 0] == pytest.approx(-gain[0, 0], abs=0.05)
    assert quadratic(linear(state, controls[0][None])[None], None)[0, 0] == pytest.approx(least, rel=0.01)
    for t in range(40):  # and in closed loop, warm-started and shifted, as `act` does
        if t:
            controls = improved(state, np.concatenate([controls[:, 1:], np.zeros((1, 1, 1))], axis=1))
        state = linear(state, controls[:, :1])[:, 0]
        paid += float(np.square(state).sum())
    assert paid == pytest.approx(least, rel=0.02)


def test_the_cost_counts_what_is_beyond_the_arrival():
    states = np.array([[[[3.0, 4.0, 9.0], [0.3, 0.0, 9.0]]]])
    goals = np.zeros((1, 2))
    assert GoalCost(arrival=0.5)(states, goals) == pytest.approx(4.5)
    assert GoalCost(lambda points, goals: 2 * euclidean(points, goals))(states, goals) == pytest.approx(10.6)


def test_samples_that_are_not_finite_have_no_weight():
    """The dynamics break where the control is above 0, the cost beyond the place 0: what is left leads down."""

    def broken(states, actions):
        futures = point(states, actions)
        futures[(actions > 0.2).any(axis=(1, 2))] = np.nan
        return futures

    def cost(states, goals):
        found = np.nan_to_num(-states[..., 0].sum(axis=-1))  # up is cheap, NaN cheaper than down
        found[:, 1] = np.nan
        found[:, 2] = -np.inf
        return found

    config = MPPIConfig(2, samples=256, controls=2, hold=1, temperature=1e-3)
    zero, rng = np.zeros((1, 2)), np.random.default_rng(0)
    controls, plan = improve(broken, cost, zero, zero, np.zeros((1, 2, 2)), config, rng)
    assert np.isfinite(controls).all() and controls.max() <= 0.2
    assert bool(plan.observations.isfinite().all()) and bool(plan.scores["cost"].isfinite().all())
