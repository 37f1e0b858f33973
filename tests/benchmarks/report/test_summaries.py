import numpy as np
import pytest
from test_cells import small_cell, small_timing

from dfplan.benchmarks.report.summaries import episodes_of, in_order, summarize
from dfplan.envs.reference import normalized_score
from dfplan.intervals import compare, interquartile_mean, mean, over_seeds_and_starts

UMAZE = "maze2d-umaze-v1"
SEEDS = list(range(100_000, 100_008))
RETURNS = {name: np.random.default_rng(i).uniform(0, 300, (3, 8)).round() for i, name in enumerate("ab")}


def cells(agent, **changes):
    return [
        small_cell(agent=agent, training_seed=seed, seeds=SEEDS, returns=returns.tolist(), **changes)
        for seed, returns in enumerate(RETURNS[agent])
    ]


def rows_of(cells, timings=()):
    """The rows as dictionaries."""
    return summarize(cells, timings).rows.to_dict("records")


def entries(row, name):
    return row[name], row[f"{name}_low"], row[f"{name}_high"]


def of(found):
    return found.value, found.low, found.high


def test_episodes_are_one_line_each():
    found = episodes_of([*cells("a"), small_cell(agent="expert", training_seed=None)])
    assert found.shape == (26, 8) and list(found["training_seed"].unique()) == [0, 1, 2, -1]
    last = found.iloc[-1]
    assert list(last[["agent", "start", "return", "success", "first_reach"]]) == ["expert", 100_001, 10, True, 12]
    assert last["score"] == normalized_score(UMAZE, 10) and np.isnan(found.iloc[-2]["first_reach"])


def test_a_rows_numbers_are_those_of_all_its_training_seeds():
    first, second = rows_of([*cells("a"), *cells("b")], [small_timing(agent="b")])
    scores = {name: normalized_score(UMAZE, returns) for name, returns in RETURNS.items()}
    assert second["return"] == pytest.approx(RETURNS["b"].mean())
    assert entries(second, "normalized") == of(mean(scores["b"], same_starts=True))
    assert entries(second, "iqm") == of(interquartile_mean(scores["b"], same_starts=True))
    assert entries(second, "over_seeds") == of(over_seeds_and_starts(scores["b"]))
    assert second["seed_means"] == tuple(scores["b"].mean(axis=1))
    compared = compare(scores["b"], scores["a"])
    assert entries(second, "difference") == of(compared)
    assert np.isnan([first["difference"], first["difference_low"], first["decision_mean_ms"]]).all()
    assert second["success"] == 0.5 and second["first_reach"] == 12
    assert [second[f"decision_{name}_ms"] for name in ("median", "p95", "mean")] == [0.5, 20, 2] and second[
        "plan_ms"
    ] == 80
    assert (second["episodes"], second["training_seeds"], second["lacks"]) == (8, 3, ["8 of 100 episodes"])


def test_training_time_is_the_mean_of_the_cards():
    cards = [{"training_seconds": 10.0 * seed} for seed in range(3)]
    trained = [small_cell(training_seed=seed, card=card) for seed, card in enumerate(cards)]
    assert rows_of(trained)[0]["training_seconds"] == 10.0
    assert np.isnan(rows_of([small_cell(training_seed=None)])[0]["training_seconds"])


def test_what_a_row_lacks_to_be_a_recorded_one_is_said():
    """Three training seeds of a hundred episodes; of an agent that is not trained, a hundred episodes."""
    hundred = list(range(100_000, 100_100))
    trained = [small_cell(training_seed=seed, seeds=hundred) for seed in range(3)]
    cases = (
        (trained, []),
        (trained[:2], ["2 of 3 seeds"]),
        ([trained[0], small_cell(training_seed=1)], ["2 of 3 seeds", "2 of 100 episodes"]),
        ([small_cell(training_seed=None, seeds=hundred)], []),
        ([small_cell(training_seed=None)], ["2 of 100 episodes"]),
    )
    for group, lacks in cases:
        assert rows_of(group)[0]["lacks"] == lacks


def test_other_starts_are_not_compared():
    other = [small_cell(agent="c", seeds=[seed + 1 for seed in SEEDS])]
    assert np.isnan(rows_of([*cells("a"), *other])[1]["difference"])
    ragged = [*cells("a"), small_cell(agent="a", training_seed=3)]
    assert np.isnan(rows_of(ragged)[0]["over_seeds_low"]) and not np.isnan(rows_of(ragged)[0]["normalized_low"])


def test_starts_are_paired_by_their_seed_in_whatever_order_they_were_played():
    returns = RETURNS["b"][0].tolist()
    forwards, backwards = (
        rows_of([*cells("a"), small_cell(agent="c", seeds=seeds, returns=values)])[1]
        for seeds, values in ((SEEDS, returns), (SEEDS[::-1], returns[::-1]))
    )
    assert entries(forwards, "difference") == entries(backwards, "difference")


def test_returns_add_up_over_an_episode():
    none = small_cell(training_seed=0, returns=(0.0, 0.0))
    pair = [none, small_cell(training_seed=1, returns=(300.0, 300.0), reward_curve=(1.0,) * 300)]
    assert np.allclose(rows_of(pair)[0]["curve"], 0.5 * np.arange(1, 301))
    assert rows_of([none, small_cell(training_seed=1, reward_curve=())])[0]["curve"].size == 0


def test_rows_stand_in_the_order_of_their_registration():
    assert in_order(["zzz", "random", "iql", "diffusion-forcing", "iql"]) == [
        "diffusion-forcing",
        "iql",
        "random",
        "zzz",
    ]


def test_each_environment_has_a_first_row_of_its_own_and_its_own_part():
    multi = "multi2d-umaze-v1"
    timings = [small_timing(agent="b"), small_timing(env_id=multi)]
    found = summarize([*cells("a"), *cells("b"), small_cell(env_id=multi)], timings)
    assert found.environments == [UMAZE, multi] and found.rows["difference"].notna().tolist() == [False, True, False]
    part = found.of(UMAZE)
    assert (
        list(part.rows["agent"]) == ["a", "b"]
        and len(part.cells) == 6
        and [one.env_id for one in part.timings] == [UMAZE]
    )


def test_a_summary_needs_results():
    with pytest.raises(ValueError, match="one or more results"):
        summarize([], [])
