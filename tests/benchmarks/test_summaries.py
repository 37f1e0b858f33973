import numpy as np
import pytest
from test_cells import small_cell, small_timing

from dfplan.benchmarks.intervals import compare, interquartile_mean, mean, over_seeds_and_starts
from dfplan.benchmarks.summaries import ordered, summarise
from dfplan.envs.reference import normalized_score

UMAZE = "maze2d-umaze-v1"
SEEDS = list(range(100_000, 100_008))
RETURNS = {name: np.random.default_rng(i).uniform(0, 300, (3, 8)).round() for i, name in enumerate("ab")}


def cells(agent, **changes):
    return [
        small_cell(agent=agent, training_seed=seed, seeds=SEEDS, returns=returns.tolist(), **changes)
        for seed, returns in enumerate(RETURNS[agent])
    ]


def test_a_rows_numbers_are_those_of_all_its_training_seeds():
    first, second = summarise([*cells("a"), *cells("b")], [small_timing(agent="b")])
    scores = {name: normalized_score(UMAZE, returns) for name, returns in RETURNS.items()}
    assert second.raw == pytest.approx(RETURNS["b"].mean())
    assert second.score == mean(scores["b"]) and second.middle == interquartile_mean(scores["b"])
    assert second.spread == over_seeds_and_starts(scores["b"])
    assert second.seed_means == tuple(scores["b"].mean(axis=1))
    assert second.difference == compare(scores["b"], scores["a"], SEEDS, SEEDS) and first.difference is None
    assert second.success == 0.5 and second.first_reach == 12
    assert (first.timing, second.timing) == (None, small_timing(agent="b"))
    assert (second.episodes, second.trained, second.full) == (8, True, False)


def test_training_time_is_the_mean_of_the_cards():
    cards = [{"training_seconds": 10.0 * seed} for seed in range(3)]
    trained = [small_cell(training_seed=seed, card=card) for seed, card in enumerate(cards)]
    assert summarise(trained, [])[0].training_seconds == 10.0
    assert summarise([small_cell(training_seed=None)], [])[0].training_seconds is None


def test_a_recorded_row_has_three_training_seeds_of_a_hundred_episodes():
    hundred = list(range(100_000, 100_100))
    trained = [small_cell(training_seed=seed, seeds=hundred) for seed in range(3)]
    assert summarise(trained, [])[0].full and not summarise(trained[:2], [])[0].full
    assert summarise([small_cell(training_seed=None, seeds=hundred)], [])[0].full
    assert not summarise([small_cell(training_seed=None)], [])[0].full


def test_other_starts_are_not_compared():
    other = [small_cell(agent="c", seeds=SEEDS[::-1])]
    assert summarise([*cells("a"), *other], [])[1].difference is None
    ragged = [*cells("a"), small_cell(agent="a", training_seed=3)]
    assert summarise(ragged, [])[0].spread.low is None


def test_returns_add_up_over_an_episode():
    pair = [small_cell(training_seed=0, reward_curve=[0.0] * 300), small_cell(training_seed=1, reward_curve=[1.0] * 300)]
    assert np.allclose(summarise(pair, [])[0].cumulative_return, 0.5 * np.arange(1, 301))
    assert summarise([pair[0], small_cell(training_seed=1, reward_curve=[])], [])[0].cumulative_return.size == 0


def test_rows_stand_in_the_order_of_their_pages():
    agents = ["diffusion-forcing", "iql", "random", "zzz"]
    mixed = [small_cell(agent=agent, training_seed=seed) for agent in agents[::-1] for seed in (1, 0)]
    found = [(cell.agent, cell.training_seed) for cell in ordered(mixed)]
    assert found == [(agent, seed) for agent in agents for seed in (0, 1)]


def test_a_table_is_of_one_environment():
    for wrong in ([], [small_cell(), small_cell(env_id="multi2d-umaze-v1")]):
        with pytest.raises(ValueError, match="cells of one environment"):
            summarise(wrong, [])
