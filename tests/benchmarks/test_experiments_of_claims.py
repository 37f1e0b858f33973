"""The experiments of the paper's claims: their parts in a tiny form, and the rules of their verdicts by hand."""

from functools import partial

import numpy as np
import pytest
import torch

from dfplan.benchmarks.experiments import (
    bound,
    composition,
    long_rollout,
    noisy_observations,
    shared,
    variable_horizon,
    zig_zag,
)
from dfplan.intervals import Estimate


@pytest.fixture(autouse=True)
def few_resamples(monkeypatch):
    monkeypatch.setattr(shared, "mean", partial(shared.mean, resamples=200))


@pytest.fixture
def here(tmp_path, monkeypatch):
    """Run folders are made in a folder of the test's own, and models of two optimizer steps."""
    monkeypatch.chdir(tmp_path)


def wiggled(value, count=20):
    """So many numbers with this mean, which differ a little."""
    return [value + (0.01 if i % 2 else -0.01) for i in range(count)]


def test_numbers_are_shown_with_their_intervals():
    one = Estimate(0.5, 0.4, 0.6)
    assert shared.above(one, 0.39) and not shared.above(one, 0.4) and not shared.above(Estimate(1.0), one)
    shown = shared.table(["a", "b"], [[1, one], ["c", "d"]], ".0%").splitlines()
    assert shown == ["| a | b |", "| --- | ---: |", "| 1 | 50% [40%, 60%] |", "| c | d |"]
    assert shared.means({"a": {1: [[1.0, 3.0], [2.0, 6.0]]}})["a"][1].value == 3.0
    assert len(shared.plot({"": {"one": {1: one, 2: Estimate(0.7)}}}, "x", "y", log=True).axes[0].lines) == 1


def bounded(gap=lambda steps: 100 / steps, auroc=0.95):
    """Parts of `bound` of two training seeds with such gaps and AUROCs."""
    parts = {}
    for name, settings in bound.parts(quick=False).items():
        odd = dict.fromkeys(["two halves", "other"], auroc)
        own = {} if name == "maze" else {"gap": dict.fromkeys(bound.ORDERS, wiggled(gap(settings["steps"])))}
        parts[name] = {"settings": settings, "auroc": odd, **own}
    return parts


def test_the_bound_must_lie_above_fall_and_tell_odd_plans():
    held, shown = bound.conclude(bounded())
    assert held and "| full sequence | 1.00 [" in shown and "0.950 (two halves in the maze)" in shown
    assert not bound.conclude(bounded(gap=lambda steps: 1.0))[0], "it must fall"
    assert not bound.conclude(bounded(gap=lambda steps: 1 - steps / 1000))[0], "it must lie above"
    assert not bound.conclude(bounded(auroc=0.8))[0]
    assert len(bound.figure(bounded()).axes[0].lines) == 3


def test_the_bound_of_a_small_model(here):
    found = bound.play({"steps": 2, "seed": 0, "sequences": 6, "rows": 4})
    assert set(found["gap"]) == set(bound.ORDERS) and np.shape(found["gap"]["zig-zag"]) == (6,)
    assert min(found["gap"]["full sequence"]) > 0, "an untrained model is far above"
    assert bound.spliced(np.arange(8).reshape(2, 4)).tolist() == [[0, 1, 6, 7], [4, 5, 2, 3]]


def crossed(straight=1.0, v_shapes=0.5, on=1.0):
    """Parts of `composition` in which so many trajectories go straight with the longest memory, and are V shapes with two."""
    parts = {}
    for name, settings in composition.parts(quick=False).items():
        ends = {str(m): [int(i >= 100 * straight) for i in range(100)] for m in composition.MEMORIES}
        ends["2"] = [int(i < 100 * v_shapes) for i in range(100)]
        parts[name] = {"settings": settings, "ends": ends, "on": dict.fromkeys(ends, [on] * 100)}
    return parts


def test_a_short_memory_must_compose_and_a_long_one_not():
    held, shown = composition.conclude(crossed())
    assert held and "| 2 | 50% [" in shown and "| 0% [0%, 0%] | 100% [100%, 100%] |" in shown
    for wrong in (crossed(straight=0.9), crossed(v_shapes=0.2), crossed(on=0.9)):
        assert not composition.conclude(wrong)[0]
    assert len(composition.figure(crossed()).axes[0].lines) == 4


def test_recorded_trajectories_go_straight_over_the_cross(here):
    x = composition.record(10, seed=0)
    assert composition.ended(x).tolist() == [0] * 10 and (composition.off(x) < composition.TOLERANCE).all()
    x[0, composition.ARM + 2 :, 0] *= -1
    x[1, composition.ARM + 2 :] *= -1
    x[2, -1] = 0
    assert composition.ended(x)[:4].tolist() == [1, 2, 3, 0] and composition.off(np.array([1.0, 0.0])) > 0.5
    training = {"draw": "independent", "tokens": composition.TOKENS, "steps": 1, "seed": 0}
    found = composition.play({"training": training, "trajectories": 3})
    assert {len(own) for part in found.values() for own in part.values()} == {3}


def rolled(worse=0.2, best=0.1):
    """Parts of `long_rollout` in which Diffusion Forcing with k_small has a share `best` of impossible states."""
    parts = {}
    for name, settings in long_rollout.parts(quick=False).items():
        shares = dict.fromkeys(long_rollout.METHODS, worse) | {next(iter(long_rollout.METHODS)): best}
        own = {method: {"rollouts": wiggled(share), "tenths": [share] * 10} for method, share in shares.items()}
        parts[name] = {"settings": settings, "impossible": own}
    return parts


def test_stabilized_rollouts_must_be_possible_more_often_in_each_system():
    held, shown = long_rollout.conclude(rolled())
    assert held and "| forcing, k_small | 10.0% [" in shown
    assert not long_rollout.conclude(rolled(best=0.2))[0]
    one = rolled()
    one["maze, seed 0"]["impossible"]["teacher forcing"]["rollouts"] = wiggled(-0.1)
    assert not long_rollout.conclude(one)[0], "in each of them"
    assert [len(axes.lines) for axes in long_rollout.figure(rolled()).axes] == [4, 4, 4]


def test_states_of_the_systems_are_possible_and_others_are_not():
    states, frames = (long_rollout.windows(name, 12, 20, seed=0) for name in ("ball", "frames"))
    assert not long_rollout.impossible("ball", states).any() and not long_rollout.impossible("frames", frames).any()
    states[0, 5, 0] += 0.2
    frames[0, 5], frames[1, 5] = -1, np.maximum(frames[1, 5], np.roll(frames[1, 5], 16))
    assert long_rollout.impossible("ball", states).sum(1).tolist() == [2, *[0] * 19], "to it and from it"
    assert long_rollout.impossible("frames", frames).sum(1)[:3].tolist() == [1, 1, 0]
    maze = np.array([[[1, 1, 0, 0], [1.1, 1, 0, 0], [2, 1, 0, 0], [2, 3, 0, 0]]], np.float32)
    assert long_rollout.impossible("maze", maze).tolist() == [[False, True, True]], "a wall, and too far"


@pytest.mark.parametrize("name", ["ball", "frames"])
def test_rollouts_of_small_models(here, name):
    small = {"tokens": 3, "network": {"width": 8, "octaves": 0}, "data": 9, "steps": 1, "rollouts": 2}
    settings = {"system": name, **small, "seed": 0}
    found = long_rollout.play(settings)["impossible"]
    assert found.keys() == long_rollout.METHODS.keys()
    assert {(len(own["rollouts"]), len(own["tenths"])) for own in found.values()} == {(2, 10)}


def driven(told=0.6, untold=1.0, clean=0.5):
    """Parts of `noisy_observations` with such mean distances, where observations are wrong and where none is."""
    cells = [(kind, share) for kind in noisy_observations.KINDS for share in noisy_observations.SHARES]
    parts = {}
    for name, settings in noisy_observations.parts(quick=False).items():
        found = {}
        for method, (_, knows) in noisy_observations.METHODS.items():
            far = told if knows else untold
            found[method] = {f"{kind} {share}": wiggled(far if share else clean) for kind, share in cells}
        parts[name] = {"settings": settings, "distances": found}
    return parts


def test_being_told_must_help_and_save_half():
    held, shown = noisy_observations.conclude(driven())
    assert held and "| forcing, told: corrupted | 0.50 [" in shown
    assert not noisy_observations.conclude(driven(told=0.8))[0], "0.3 of 0.5 are lost still"
    assert not noisy_observations.conclude(driven(told=1.0))[0]
    assert [len(axes.lines) for axes in noisy_observations.figure(driven()).axes] == [3, 3]


def test_a_policy_is_told_the_levels_of_what_it_sees(here, monkeypatch):
    shown = []

    def watch(model, past, fresh, generator, *, levels, steps):
        shown.append((past, levels))
        return torch.zeros(len(past), fresh, 6)

    monkeypatch.setattr(noisy_observations, "EPISODE", 12)
    monkeypatch.setattr(shared, "next_tokens", watch)
    found = noisy_observations.play({"training": {"tokens": 9, "steps": 1, "seed": 0}, "episodes": 2})["distances"]
    assert found.keys() == noisy_observations.METHODS.keys() and len(shown) == 3 * 12
    (told, levels), (untold, none) = shown[11], shown[23]
    corrupted, dropped = levels[:12], levels[12:]
    assert set(corrupted.unique().tolist()) == {0, 32} and set(dropped.unique().tolist()) == {0, 64} and not none.any()
    assert not (levels[:2].any() or levels[12:14].any()), "nothing is wrong in a share of 0"
    assert torch.equal((untold != told)[..., :4].any(-1)[:12], torch.zeros_like(corrupted) > 0), (
        "the sensor's noise is the same"
    )
    stale = (untold[:, 1:, :4] == untold[:, :-1, :4]).all(-1)
    assert stale[12:].any() and not stale[:12].any(), "of what is dropped the last observation stays"


def planned(forcing=1.0, diffuser=0.9):
    """Parts of `variable_horizon` with such shares of possible plans."""
    parts = {}
    for name, settings in variable_horizon.parts(quick=False).items():
        share = diffuser if name == "diffuser" else forcing
        possible = {str(n): [i < 50 * share for i in range(50)] for n in variable_horizon.LENGTHS}
        parts[name] = {"settings": settings, "possible": possible}
    return parts


def test_one_model_must_plan_all_lengths_and_diffuser_its_own():
    held, shown = variable_horizon.conclude(planned())
    assert held and "| 1008 | 100% [100%, 100%] | 90% [" in shown
    short = planned()
    short["forcing, seed 0"]["possible"]["1008"] = [i < 40 for i in range(50)]
    for wrong in (short, planned(diffuser=0.8), planned(forcing=0.9, diffuser=1.0)):
        assert not variable_horizon.conclude(wrong)[0]
    assert len(variable_horizon.figure(planned()).axes[0].lines) == 2


def turned(zig_zag_scores=100.0, zig_zag_free=0.9):
    """Parts of `zig_zag` in which all else scores 80 and has 80% of plans through no wall."""
    parts = {}
    for name, settings in zig_zag.parts(quick=False).items():
        best = settings["dial"] == zig_zag.ZIG_ZAG
        scores, free = (zig_zag_scores, zig_zag_free) if best else (80.0, 0.8)
        parts[name] = {"settings": settings, "scores": wiggled(scores), "free": wiggled(free)}
    return parts


def test_the_zig_zag_must_score_more_than_both_ends_of_the_dial():
    held, shown = zig_zag.conclude(turned())
    assert held and "| maze2d-umaze-short: 1 | 80.0 [80.0, 80.0] | 80% [80%, 80%] | +20.0 [+20.0, +20.0] |" in shown
    for wrong in (turned(zig_zag_scores=80.0), turned(zig_zag_free=0.8)):
        assert not zig_zag.conclude(wrong)[0]
    better = turned()
    better["maze2d-umaze-full-sequence, 0.0"]["scores"] = wiggled(100.0)
    assert not zig_zag.conclude(better)[0], "a model trained for one end of the dial counts as well"
    assert [len(axes.lines) for axes in zig_zag.figure(turned()).axes] == [3]


@pytest.mark.parametrize("dial", zig_zag.DIAL)
def test_every_place_of_the_dial_takes_as_many_evaluations(dial):
    from dfplan.diffusion.matrices import autoregressive, full_sequence, pyramid

    matrix = pyramid(24, 256, **zig_zag.schedule(48, dial, 24))
    assert len(matrix) == 48 + 1
    ends = {0.0: full_sequence(24, 256, 48), 1.0: autoregressive(24, 256, 2)}
    assert dial not in ends or matrix.equal(ends[dial])


@pytest.mark.slow
def test_the_dial_is_turned_in_the_maze():
    settings = zig_zag.parts(quick=True)[f"{zig_zag.FIRST}, 0.025"]
    found = zig_zag.play({**settings, "evaluations": 24, "episodes": 1})
    assert found["scores"][0] > 50 and 0 <= found["free"][0] <= 1
