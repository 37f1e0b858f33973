import dataclasses
import warnings

import numpy as np
import pytest
import torch

from dfplan.data.statistics import BOUND, Normalizer, Statistics, bounded_since
from dfplan.data.trajectories import Trajectories


def recorded(rows: int = 2000) -> np.ndarray:
    rng = np.random.default_rng(0)
    return (rng.standard_normal((rows, 3)) * [0.1, 2.0, 50.0] + [5.0, -1.0, 1000.0]).astype(np.float32)


def test_fitted_columns_have_zero_mean_and_unit_deviation():
    data = recorded()
    normalizer = Normalizer.fit(data)
    x = normalizer.normalize(torch.from_numpy(data))
    np.testing.assert_allclose(x.mean(0), 0, atol=1e-4)
    np.testing.assert_allclose(x.std(0, correction=0), 1, rtol=1e-4)
    np.testing.assert_allclose(normalizer.mean, data.astype(np.float64).mean(0), rtol=1e-6)


@pytest.mark.parametrize("leading", [(), (7,), (2, 3), (2, 1, 4)])
def test_denormalize_undoes_normalize_for_any_leading_shape(leading):
    normalizer = Normalizer.fit(recorded())
    x = torch.randn(*leading, 3, generator=torch.Generator().manual_seed(0))
    assert normalizer.normalize(x).shape == x.shape
    torch.testing.assert_close(normalizer.normalize(normalizer.denormalize(x)), x, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("constant", [0.0, 0.1, 1e6, -3e-9])
def test_a_constant_column_stays_finite_and_comes_back(constant):
    data = recorded()
    data[:, 1] = constant
    normalizer = Normalizer.fit(data)
    x = normalizer.normalize(torch.from_numpy(data))
    assert x.isfinite().all() and x[:, 1].abs().max() < 1e-3
    np.testing.assert_allclose(normalizer.denormalize(x)[:, 1], data[:, 1], rtol=1e-6)
    assert normalizer.std[1] == 1


def test_a_small_but_moving_column_is_still_scaled():
    data = recorded()
    data[:, 0] = (data[:, 0] - 5) * 1e-3  # deviation 1e-4
    x = Normalizer.fit(data).normalize(torch.from_numpy(data))
    np.testing.assert_allclose(x[:, 0].std(correction=0), 1, rtol=1e-3)


def test_fit_sums_in_double_precision():
    data = np.full((3_000_000, 1), 1000.0, np.float32)
    data[::2] += 0.5
    normalizer = Normalizer.fit(data)
    np.testing.assert_allclose(normalizer.mean, 1000.25, rtol=1e-7)
    np.testing.assert_allclose(normalizer.std, 0.25, rtol=1e-6)


def test_statistics_are_saved_but_never_trained():
    owner = torch.nn.Module()
    owner.add_module("observation", Normalizer([1.0], [2.0]))
    assert set(owner.state_dict()) == {"observation.mean", "observation.std", "observation.bound"}
    assert not list(owner.parameters())
    mean = torch.ones(1)
    normalizer = Normalizer(mean, mean)
    mean += 1
    assert normalizer.mean == 1  # its own copy


def test_gradients_pass_through():
    normalizer = Normalizer([1.0, 0.0], [2.0, 4.0])
    x = torch.zeros(2, requires_grad=True)
    normalizer.denormalize(x).sum().backward()
    torch.testing.assert_close(x.grad, torch.tensor([2.0, 4.0]))


def spiked(spikes: float = 52.0, rows: int = 100_000) -> np.ndarray:
    """A column like a wrist joint that hardly moves, mean -1.57 and deviation 0.0005, with outliers; and an ordinary one."""
    data = np.random.default_rng(0).standard_normal((rows, 2))
    data[::20_000, 0] = spikes
    return (data * [0.0005, 3.0] + [-1.57, 2.0]).astype(np.float32)


def test_normalized_values_are_bounded_and_no_recorded_one_is_cut():
    data = spiked()
    normalizer = Normalizer.fit(data)
    x = normalizer.normalize(torch.from_numpy(data))
    assert x[:, 0].abs().max() == pytest.approx(BOUND, rel=1e-4) and x[:, 1].std() == pytest.approx(1, rel=1e-3)
    assert 0.1 < x[1:20_000, 0].std() < 0.3  # its ordinary values look small, as far as its outliers are away
    np.testing.assert_allclose(normalizer.denormalize(x), data, rtol=1e-6, atol=1e-6)
    unseen = normalizer.normalize(torch.tensor([[3.0, 1e6], [-1.57, -1e30]]))
    torch.testing.assert_close(unseen, torch.tensor([[BOUND, BOUND], [0.0, -BOUND]]), atol=0.1, rtol=0)
    wrong = normalizer.normalize(torch.tensor([[torch.inf, torch.nan]]))  # so that it is still found and refused
    assert wrong[0, 0].isinf() and wrong[0, 1].isnan()


def test_bounds_change_nothing_where_values_are_ordinary_or_a_file_is_older_than_bounds():
    data = recorded()
    fitted = Normalizer.fit(data)
    older = Normalizer(fitted.mean, fitted.std)
    assert torch.equal(fitted.normalize(torch.from_numpy(data)), older.normalize(torch.from_numpy(data)))
    far = torch.tensor([[-1e30, 1e30, 3.4e38]])
    assert torch.equal(older.normalize(far), (far - older.mean) / older.std)
    expected = torch.nn.ModuleDict({"observation": fitted}).state_dict()
    file = {name: tensor for name, tensor in expected.items() if name != "observation.bound"}
    assert bounded_since(file, expected)["observation.bound"] == older.bound
    assert bounded_since(expected, expected) == expected and bounded_since({}, expected) == {}


def test_one_warning_names_the_columns_with_outliers():
    data = dataclasses.replace(behavior(spiked()), observations=np.ascontiguousarray(np.roll(spiked(), 1, axis=1)))
    units = Statistics(2, 2)
    with pytest.warns(UserWarning, match="outliers") as caught:
        units.fit_statistics(data)
    (warning,) = caught
    text = str(warning.message)
    assert text.startswith(
        "some behavior: outliers of more than 10 deviations in observation column 1 (49), action col"
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Statistics(2, 2, scale_actions=True).fit_statistics(behavior(spiked(3.0)))


def test_wrong_widths_and_statistics_are_refused():
    normalizer = Normalizer.fit(recorded())
    for x in (torch.zeros(5, 2), torch.zeros(()), torch.zeros(3, 1)):
        for method in (normalizer.normalize, normalizer.denormalize):
            with pytest.raises(ValueError, match="is for 3 columns"):
                method(x)
    for mean, std in (([0.0], [1.0, 1.0]), ([], []), (0.0, 1.0), ([[0.0]], [[1.0]])):
        with pytest.raises(ValueError, match=r"one shape \(columns,\)"):
            Normalizer(mean, std)
    for mean, std in (([0.0], [0.0]), ([0.0], [-1.0]), ([float("nan")], [1.0]), ([0.0], [float("inf")])):
        with pytest.raises(ValueError, match="finite"):
            Normalizer(mean, std)
    for bound in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="finite, positive bound"):
            Normalizer([0.0], [1.0], bound)
    for data in (np.zeros(3), np.zeros((0, 3)), np.zeros((2, 2, 2))):
        with pytest.raises(ValueError, match=r"\(steps, columns\)"):
            Normalizer.fit(data)
    with pytest.raises(ValueError, match="NaN"):
        Normalizer.fit(np.array([[1.0], [np.nan]]))


def behavior(actions):
    steps = np.arange(len(actions), dtype=np.float32)
    observations = np.stack([steps, steps % 3, 5 + 0 * steps], axis=1)
    return Trajectories(observations, np.asarray(actions, np.float32), 0 * steps, np.array([0]), "some behavior")


def test_scaled_actions_have_their_recorded_limits_at_plus_and_minus_one():
    units = Statistics(3, 2, scale_actions=True)
    units.fit_statistics(behavior([[0.0, 5.0], [4.0, 7.0], [1.0, 6.0]]))
    actions = torch.tensor([[0.0, 7.0], [4.0, 5.0], [3.0, 6.0]])
    scaled = units.scale_action(actions)
    assert scaled.tolist() == [[-1.0, 1.0], [1.0, -1.0], [0.5, 0.0]]
    assert torch.equal(units.unscale_action(scaled), actions)
    observation = {f"observation.{name}" for name in ("mean", "std", "bound")}
    assert set(units.state_dict()) == observation | {"action_low", "action_high"}


def test_an_action_that_never_changes_can_be_normalized_but_not_scaled():
    still = behavior([[0.0, 5.0], [4.0, 5.0]])
    with pytest.raises(ValueError, match="some behavior: column 1 of the actions never changes"):
        Statistics(3, 2, scale_actions=True).fit_statistics(still)
    units = Statistics(3, 2)
    units.fit_statistics(still)
    assert units.action.std.tolist() == [2.0, 1.0]
    assert {"action.mean", "action.std"} < set(units.state_dict())


def test_a_state_at_a_goal_is_at_the_mean_elsewhere():
    units = Statistics(3, 2)
    units.fit_statistics(behavior([[0.0, 0.0], [1.0, 1.0], [2.0, 2.0]]))
    state = units.state_at(torch.tensor([[9.0, 8.0], [7.0, 6.0]]), (2, 0))
    torch.testing.assert_close(state, torch.tensor([[8.0, 1.0, 9.0], [6.0, 1.0, 7.0]]))
