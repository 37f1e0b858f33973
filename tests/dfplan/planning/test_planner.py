"""The planner: the choice among candidates, what guides them, what is known of a goal, and its answers to mistakes.

The model here draws a Gaussian process exactly (`gaussian.exact`), so that nothing is trained; its plausibility is replaced
where a choice is tested.
"""

import math
import pickle
import warnings
from itertools import pairwise

import pytest
import torch
from gaussian import chain, exact

from dfplan.data.tokens import TokenLayout
from dfplan.diffusion.costs import CostError
from dfplan.models import TransformerConfig
from dfplan.planning import proposal
from dfplan.planning.ask import Ask
from dfplan.planning.choice import SCORES, choose, lowest
from dfplan.planning.costs import ReachAt, ReachSoonest, ReachThroughout
from dfplan.planning.model import TrajectoryModel, TrajectoryModelConfig
from dfplan.planning.plan import hold_end
from dfplan.planning.plan_config import PlanConfig
from dfplan.planning.planner import Planner, check_finite, evenly_spaced, make_plan
from dfplan.planning.proposal import propose

T, LEVELS = 6, 16
START = torch.tensor([[10.0, -5.0]])
GOAL = torch.tensor([[14.0, 1.0]])
SMALL = TransformerConfig(width=16, depth=1, heads=2)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def model():
    """Tokens of one observation of two columns, in other units than the normalized ones."""
    torch.manual_seed(0)
    config = TrajectoryModelConfig(
        TokenLayout(2, 1, stride=1), (0, 1), tokens=T, levels=LEVELS, model=SMALL, longest_gap=2
    )
    made = TrajectoryModel(config).eval()
    made.diffusion = exact(chain(T), LEVELS)
    made.observation.mean.copy_(torch.tensor([10.0, -5.0]))
    made.observation.std.copy_(torch.tensor([2.0, 3.0]))
    return made


@pytest.fixture
def untrained(model):
    """The same with a network instead of the process, for sequences of any length."""
    model.diffusion = TrajectoryModel(model.config).diffusion
    torch.nn.init.normal_(model.diffusion.model.out.weight)
    return model


def plan(model, start=START, aim=GOAL, *, seed=0, lengths=None, own=None, record=False, **options):
    options = {"horizons": 5, "steps": 4} | options
    ask = Ask(aim, costs=() if own is None else own)
    return make_plan(model, start, ask, PlanConfig(**options), generator(seed), horizons=lengths, record=record)


def judge(model, odds):
    """Replace plausibility by ``odds(before, after)`` of normalized places."""
    model.plausibility.forward = odds


def test_without_noise_plans_of_one_length_are_one_plan(model):
    def ends(temperature):
        config = PlanConfig(samples=3, steps=4, temperature=temperature)
        drawn = propose(model, START, Ask(), config, generator(), torch.tensor([[T - 1]]))
        return drawn.observations[:, -1, 0]

    cold, warm = ends(0.0), ends(1.0)
    torch.testing.assert_close(cold, cold[:1].expand(3, 2))
    assert bool((warm.std(0) > 0.1).all())


# Choice ---------------------------------------------------------------------------------------------------------------

LENGTHS = torch.tensor([[3.0, 5.0, 9.0]])


@pytest.mark.parametrize(
    ("odds", "margin", "price", "chosen"),
    [
        ([0.0, 1.0, 2.0], -4.0, 1.0, 0),  # all possible: the shortest
        ([-30.0, 1.0, 2.0], -4.0, 1.0, 1),  # the shortest possible
        ([-30.0, -20.0, -9.0], -4.0, 1.0, 2),  # none possible: 29, 21 and 14 tokens
        ([-5.0, 1.0, 2.0], -4.0, 1.0, 0),  # one unit below costs one token: 4 against 5
        ([-5.0, 1.0, 2.0], -4.0, 3.0, 1),  # three tokens: 6 against 5
        ([-30.0, 1.0, 2.0], -4.0, 0.0, 0),  # a plausibility that costs nothing
        ([0.0, 1.0, 2.0], 1.5, 9.0, 2),  # a higher margin: 16.5, 9.5 and 9 tokens
        ([math.nan, 1.0, 2.0], -4.0, 1.0, 1),
        ([math.nan, math.nan, -90.0], -4.0, 1.0, 2),
        ([math.inf, -math.inf, -90.0], -4.0, 0.0, 2),
    ],
)
def test_the_shortest_possible_candidate_is_chosen(odds, margin, price, chosen):
    assert choose({"plausibility": torch.tensor([odds])}, LENGTHS, PlanConfig(margin=margin, price=price)).tolist() == [
        chosen
    ]


def test_among_equals_the_more_plausible_is_chosen():
    lengths = torch.full((2, 3), 4.0)
    odds = torch.tensor([[0.0, 3.0, 1.0], [5.0, -3.0, 4.0]])
    assert choose({"plausibility": odds}, lengths, PlanConfig()).tolist() == [1, 0]


@pytest.mark.parametrize(
    ("scores", "chosen"),
    [
        ({}, 0),
        ({"cost": [0.0, 0.0, -7.0]}, 2),  # 3, 5 and 2
        ({"cost": [9.0, 0.0, 0.0]}, 1),
        ({"value": [0.0, 0.0, 7.0]}, 2),
        ({"value": [0.0, 0.0, 5.0]}, 0),
        ({"plausibility": [-9.0, 1.0, 1.0], "cost": [0.0, 0.0, -3.0]}, 1),  # 8, 5 and 6
        ({"cost": [-90.0, 0.0, 0.0], "violation": [0.1, 0.0, 0.0]}, 1),  # a constraint comes before any cost
        ({"plausibility": [0.0, 0.0, -13.0], "violation": [0.1, 0.2, 0.0]}, 2),  # and before plausibility
        ({"plausibility": [0.0, 0.0, -90.0], "violation": [0.1, 0.2, 0.0]}, 0),  # but not where nobody can follow
        ({"plausibility": [-80.0, -99.0, -90.0], "violation": [0.1, 0.0, 0.0]}, 2),  # unless there is no other
        ({"violation": [0.3, 0.2, 0.2]}, 1),  # none keeps it: the least violation, then the shortest
        ({"violation": [math.nan, 0.2, 0.1]}, 2),
        ({"cost": [math.nan, 0.2, 0.1]}, 1),
    ],
)
def test_every_score_has_its_part_in_the_choice(scores, chosen):
    scores = {name: torch.tensor([score]) for name, score in scores.items()}
    assert choose(scores, LENGTHS, PlanConfig()).tolist() == [chosen]


def test_a_lost_candidate_is_not_chosen_without_scores_either():
    assert choose({}, torch.tensor([[math.nan, 5.0, 9.0]]), PlanConfig()).tolist() == [1]


def test_a_row_without_a_finite_candidate_is_an_error():
    with pytest.raises(ValueError, match="none of the 3 candidate plans is finite"):
        choose({"plausibility": torch.tensor([[0.0, 1.0, 2.0], [math.nan] * 3])}, LENGTHS.expand(2, 3), PlanConfig())
    with pytest.raises(ValueError, match="none of the 2 candidate plans is finite"):
        lowest(torch.tensor([[math.inf, math.nan]]))


def test_spread_ends_at_both_ends():
    assert evenly_spaced(1, 39, 20).tolist() == list(range(1, 40, 2))
    assert evenly_spaced(1, 5, 5).tolist() == [1, 2, 3, 4, 5]
    assert evenly_spaced(4, 4, 3).tolist() == [4, 4, 4]
    assert evenly_spaced(1, 9, 1).tolist() == [9], "one alone is the longest"
    assert evenly_spaced(1, 3, 5).tolist()[0] == 1 and evenly_spaced(1, 3, 5).tolist()[-1] == 3


def test_beyond_its_length_a_sequence_repeats_its_end():
    x = torch.arange(10.0).view(2, 5, 1)
    held = hold_end(x, torch.tensor([2, 4]))
    assert held[..., 0].tolist() == [[0, 1, 2, 2, 2], [5, 6, 7, 8, 9]]


def test_a_plan_that_is_not_finite_is_refused():
    check_finite(torch.zeros(2), None)
    for parts in ((torch.tensor([math.nan]), None), (torch.zeros(1), torch.tensor([math.inf]))):
        with pytest.raises(ValueError, match="the plan is not finite"):
            check_finite(*parts)


# Plans ----------------------------------------------------------------------------------------------------------------


def test_plausibility_decides_about_the_length(model):
    """It finds steps possible that are short, and so plans that take their time."""
    judge(model, lambda before, after: 40 * (1.5 - (after - before).norm(dim=-1)))
    slow = plan(model, seed=1)
    judge(model, lambda before, after: torch.zeros(before.shape[:-1]))
    fast = plan(model, seed=1)
    assert int(fast.lengths) == 1 < int(slow.lengths)


def test_a_plan_of_a_length_begins_at_the_start_ends_at_the_goal_and_rests_there(untrained):
    model = untrained
    found = plan(model, lengths=torch.tensor([[3]]))
    assert found.lengths.tolist() == [3] and found.observations.shape == (1, 4, 1, 2)
    torch.testing.assert_close(found.observations[:, 0, 0], START)
    torch.testing.assert_close(found.observations[:, 3, 0], GOAL)
    two = plan(model, START.repeat(2, 1), GOAL.repeat(2, 1), lengths=torch.tensor([[2], [4]]))
    assert two.lengths.tolist() == [2, 4]
    torch.testing.assert_close(two.observations[0, 2:, 0], GOAL.expand(3, 2))


def test_each_row_of_a_batch_has_its_own_start_and_goal(model):
    starts, goals = torch.cat([START, START + 1]), torch.cat([GOAL, GOAL - 9])
    found = plan(model, starts, goals)
    rows = torch.arange(2)
    torch.testing.assert_close(found.observations[:, 0, 0], starts)
    torch.testing.assert_close(found.observations[rows, found.lengths, 0], goals)


def test_more_samples_leave_more_to_choose_from(model):
    judge(model, lambda before, after: -(after - before).norm(dim=-1))

    def odds(seed, samples):
        found = plan(model, seed=seed, lengths=torch.tensor([[5]]), samples=samples, margin=9.0)
        return float(found.scores["plausibility"])

    one, eight = ([odds(seed, samples) for seed in range(8)] for samples in (1, 8))
    assert sum(eight) / 8 > sum(one) / 8 + 0.1


@pytest.mark.parametrize("matrix", ["pyramid", "trapezoid"])
def test_the_matrix_says_in_which_order_tokens_are_resolved(model, matrix):
    found = plan(model, lengths=torch.tensor([[5]]), matrix=matrix, uncertainty=2.0, goal="guided", record=True)
    levels = torch.stack([k[0] for _, k in found.history])
    done = (levels == 0).float().argmax(0)[1:]  # the row at which each token after the start is clean
    if matrix == "pyramid":
        assert bool((done.diff() > 0).all())
    else:
        assert int(done[-1]) == int(done.min()) and 1 <= int(done.argmax()) <= 3, "both ends first, the middle last"
    for (_, k), (_, k_next) in pairwise(found.history):
        assert bool((k_next <= k).all())


def test_a_trapezoid_has_its_ends_at_those_of_each_plan(untrained):
    config = PlanConfig(matrix="trapezoid", steps=4, uncertainty=1.0)
    found = propose(untrained, START, Ask(), config, generator(), torch.tensor([[2, 3, 5]]), record=True)
    for row, lags in enumerate(([1, 0], [1, 1, 0], [1, 2, 2, 1, 0])):
        levels = torch.stack([k[row, 1 : len(lags) + 1] for _, k in found.history])
        assert (levels == 0).float().argmax(0).tolist() == [4 + lag for lag in lags]


def test_without_a_goal_the_next_token_is_drawn(untrained):
    found = plan(untrained, aim=None)
    assert found.lengths.tolist() == [1] and found.observations.shape == (1, 2, 1, 2)


def ask_for(model, ask, planner=None, seed=0, lengths=None, **options):
    config = PlanConfig(**{"horizons": 5, "steps": 4} | options)
    return make_plan(model, START, ask, config, generator(seed), horizons=lengths, planner=planner)


def test_without_plausibility_the_longest_is_tried_and_the_lowest_cost_chosen(model):
    def cost(x):
        return x[..., 1].mean(-1)

    model.plausibility = None
    ask, seen = Ask(GOAL, costs=cost), []

    def choice(scores, lengths, config):
        seen.append((scores, lengths))
        return choose(scores, lengths, config)

    found = ask_for(model, ask, Planner(choose=choice), samples=6)
    ((scores, lengths),) = seen
    assert scores.keys() == {"cost"} and lengths.tolist() == [[5.0] * 6]
    assert float(found.scores["cost"]) == float(scores["cost"].min()) < float(scores["cost"].max())
    torch.testing.assert_close(found.scores["cost"], cost(found.observations[:, :, 0]))


def test_costs_and_constraints_steer_and_constraints_decide(model):
    def above(x):
        return x[..., 1].amax(-1) + 1.0  # kept while the second column is below -1 throughout; the goal is at 1

    free = ask_for(model, Ask(GOAL), samples=8)
    kept = ask_for(model, Ask(GOAL, constraints=[above]), samples=8)
    assert float(kept.scores["violation"]) == float(above(kept.observations[:, :, 0]).clamp(min=0)) >= 2
    low = Ask(GOAL, constraints=lambda x: x[:, 1:-1, 1].mean(-1) + 6)
    found = [
        ask_for(model, ask, lengths=torch.tensor([[5]])).observations[0, 1:-1, 0, 1].mean() for ask in (Ask(GOAL), low)
    ]
    assert found[1] < found[0] - 0.1 and not free.scores.keys() & {"cost", "violation"}


def test_a_violation_below_zero_is_none(model):
    found = ask_for(model, Ask(GOAL, constraints=lambda x: x[..., 1].mean(-1) - 99))
    assert float(found.scores["violation"]) == 0


def test_every_part_of_a_planner_can_be_replaced(model):
    def two(model, observation, ask, config, generator, horizons, record, past):
        return propose(model, observation, ask, config, generator, torch.tensor([[3, 5]]), record, past)

    def last(scores, lengths, config):
        return lengths.new_full((len(lengths),), lengths.shape[1] - 1, dtype=torch.int64)

    assert ask_for(model, Ask(GOAL), Planner(propose=two, choose=last)).lengths.tolist() == [5]
    value = Planner(scores=SCORES | {"value": lambda model, plan, ask, each: 9.0 * plan.lengths})
    plain, valued = (ask_for(model, Ask(GOAL), one, margin=-99.0) for one in (Planner(), value))
    assert plain.lengths.tolist() == [1] and valued.lengths.item() > 1, "what is worth more than its length is taken"
    assert pickle.loads(pickle.dumps(Planner())) == Planner()


def test_a_return_is_refused_by_a_model_that_has_learned_none(model):
    with pytest.raises(ValueError, match="has learned no returns"):
        ask_for(model, Ask(GOAL, return_=3.0))


def test_a_plan_has_its_tokens_and_their_levels(model):
    found = ask_for(model, Ask(GOAL), lengths=torch.tensor([[3, 5]]), margin=-99.0)
    assert found.lengths.tolist() == [3] and found.levels.tolist() == [[0, 0, 0, 0, LEVELS, LEVELS]]
    again = model.observation.denormalize(found.tokens)
    torch.testing.assert_close(again[:, :4], found.observations[:, :4, 0])


# Guidance -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["throughout", "soonest"])
def test_a_guided_goal_draws_the_plan_to_it_and_is_not_known(model, name):
    near = torch.tensor([[8.5, -2.5]]).repeat(64, 1)
    guide = proposal.GUIDES[name](near, (0, 1))

    def cost(scale):
        options = {"goal": "guided", "guide": name, "horizons": 1, "steps": 16, "scale": scale}
        found = plan(model, START.repeat(64, 1), near, **options).observations[:, :, 0]
        assert float((found[:, -1] - near).norm(dim=1).min()) > 1e-3, "a known goal would be met exactly"
        return float(guide(found).mean())

    assert cost(4.0) < 0.95 * cost(0.0)


def test_the_goals_guide_and_a_users_own_add_up_each_by_its_own_weight(model):
    """The cost is scale * goal + 1 * user, whatever the scale: the goal's own guide, given once more, is one more."""
    options = {"goal": "guided", "guide": "throughout", "horizons": 1}
    again = ReachThroughout(GOAL, (0, 1))
    for scale in (0.0, 0.5, 2.0):
        both = plan(model, scale=scale, own=again, **options)
        torch.testing.assert_close(both.observations, plan(model, scale=scale + 1, **options).observations)


def test_a_users_guide_has_the_same_weight_with_the_goals_guide_on_or_off(model, monkeypatch):
    class Nothing(ReachSoonest):
        def __call__(self, x0):
            return 0 * super().__call__(x0)

    monkeypatch.setitem(proposal.GUIDES, "soonest", Nothing)
    own = ReachAt(GOAL, (0, 1), -1)
    found = [plan(model, goal="guided", horizons=1, scale=s, own=own).observations for s in (0.0, 1.0, 8.0)]
    assert torch.equal(found[0], found[1]) and torch.equal(found[0], found[2])
    assert not torch.equal(found[0], plan(model, goal="guided", horizons=1).observations)


def test_a_users_guide_sees_recorded_units_a_row_for_each_start_and_the_plans_end_beyond_it(model):
    seen = []

    def guide(x):
        seen.append(x.detach())
        return x.square().sum((1, 2))

    plan(
        model, START.repeat(3, 1), GOAL.repeat(3, 1), lengths=torch.tensor([[2, 5]]).repeat(3, 1), own=guide, samples=2
    )
    assert all(x.shape == (3, 6, 2) for x in seen)
    last = seen[-4:]  # the candidates of the last row of sampling: two lengths, two samples
    for x, length in zip(last, (2, 2, 5, 5), strict=True):
        torch.testing.assert_close(x[:, 0], START.expand(3, 2))
        torch.testing.assert_close(x[:, length:], GOAL.expand(3, 6 - length, 2))


# Never NaN ------------------------------------------------------------------------------------------------------------


def path_length(x):
    """Without a finite gradient where two tokens are equal, and so for all candidates but the longest."""
    return (x[:, 1:] - x[:, :-1]).square().sum(-1).sqrt().sum(-1)


def test_candidates_that_are_not_finite_are_left_out_with_a_warning(model):
    with pytest.warns(UserWarning, match="some candidate plans are not finite and are left out"):
        found = plan(model, goal="guided", scale=1.0, own=path_length)
    assert found.lengths.tolist() == [5] and bool(found.observations.isfinite().all())
    assert bool(found.scores["plausibility"].isfinite().all())


@pytest.mark.filterwarnings("ignore:some candidate")
@pytest.mark.parametrize("scale", [1e20, 1e30])
def test_where_no_candidate_is_finite_an_error_says_why(model, scale):
    with pytest.raises(ValueError, match=r"none of the 5 candidate plans is finite: a guide's gradient, its scale"):
        plan(model, goal="guided", guide="throughout", scale=scale)


@pytest.mark.parametrize("guide_off", [True, False])
@pytest.mark.parametrize(
    "guide",
    [
        lambda x: x.sum(-1),  # one cost for each token: it shortened plans
        lambda x: x.sum(),
        lambda x: x.sum((1, 2)) * math.nan,
        lambda x: x.sum((1, 2)) + math.inf,
        lambda x: torch.zeros(len(x)),
        lambda x: x.detach().sum((1, 2)),
        lambda x: 0.5,
        lambda x: x.no_such_thing,
    ],
)
def test_a_guide_that_returns_anything_else_is_refused(model, guide, guide_off):
    with pytest.raises(CostError, match="one finite, differentiable cost for each sequence, a float tensor of shape"):
        plan(model, START.repeat(6, 1), GOAL.repeat(6, 1), own=guide, scale=0.0 if guide_off else 1.0)


def test_a_users_guide_may_work_in_place(model):
    def in_place(x):
        return x.sub_(GOAL).square().sum((1, 2))

    def plain(x):
        return (x - GOAL).square().sum((1, 2))

    def draw(guide):
        return plan(model, goal="guided", scale=1.0, own=guide).observations

    assert torch.equal(draw(in_place), draw(plain))


# Actions in tokens ----------------------------------------------------------------------------------------------------


def bundled(draws):
    """A model whose tokens hold two observations and two actions."""
    torch.manual_seed(0)
    layout = TokenLayout(2, 1, stride=2, observations="all", actions=True)
    made = TrajectoryModel(
        TrajectoryModelConfig(layout, (0, 1), tokens=5, levels=8, model=SMALL, draws=draws, longest_gap=2)
    )
    torch.nn.init.normal_(made.diffusion.model.out.weight)
    made.action.mean.fill_(0.5)
    made.action.std.fill_(2.0)
    return made.eval()


def test_diffused_actions_are_in_recorded_units_and_beyond_a_plans_length_the_mean(model):
    made = bundled({"goal_ramp": 1.0})
    found = plan(made, START.repeat(2, 1), GOAL.repeat(2, 1), lengths=torch.tensor([[2], [4]]), record=True)
    assert found.actions.shape == (2, 8, 1)
    assert bool((found.actions[0, 4:] == 0.5).all()) and not bool((found.actions[:, :2] == 0.5).any())
    assert plan(model).actions is None
    seen = []
    made.diffusion.model.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0]))
    again = plan(made, lengths=torch.tensor([[4]]))
    layout = made.config.layout
    assert not bool((again.actions[0, :6] == 0.5).any()), (
        "the goal's own steps are shown as unknown, the others are drawn"
    )
    for x in seen:
        state = made.observation.normalize(made.state_at(GOAL, (0, 1)))
        assert torch.equal(x[:, 4], layout.state_token(state))


def test_training_shows_goals_as_planning_does():
    """Of a goal only the closing observation is known: neither the actions that lead there nor the steps before it."""
    made = bundled({"goal_ramp": 1.0})
    layout, given = made.config.layout, []
    draw, loss = made.draw, made.diffusion.loss
    made.draw = lambda *arguments: given.append(draw(*arguments)) or given[-1]
    made.diffusion.loss = lambda x0, levels, g: given.append(x0) or loss(x0, levels, g)
    observations = torch.randn(64, layout.steps(5), 2, generator=generator())
    actions = torch.randn(64, layout.steps(5), 1, generator=generator(1))
    made((observations, actions), generator())
    (levels, x0), packed = given, layout.pack(observations, made.action.normalize(actions))
    assert bool(levels.goal.any())
    assert torch.equal(x0[levels.goal], layout.state_token(packed[..., layout.last])[levels.goal])
    assert torch.equal(x0[~levels.goal], packed[~levels.goal]), "a clean token of the past has its actions"


def test_a_model_that_was_never_shown_a_goal_without_its_actions_is_not_asked_for_a_known_one():
    made = bundled({"independent": 1.0})
    with pytest.raises(
        ValueError, match=r"cannot plan to a known goal: .* expected goal='guided', or one of goal_ramp"
    ):
        plan(made)
    assert plan(made, aim=None).lengths.tolist() == [1]
    guided = make_plan(made, START, Ask(GOAL), PlanConfig("guided", 1, scale=1.0), generator())
    assert bool(guided.observations.isfinite().all())


# Mistakes -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("goal", "unknown"),
        ("horizons", 0),
        ("horizons", 2.5),
        ("samples", 0),
        ("steps", -1),
        ("matrix", "pyramids"),
        ("uncertainty", -0.1),
        ("uncertainty", math.inf),
        ("eta", 1.1),
        ("eta", math.nan),
        ("guide", "never"),
        ("scale", -1.0),
        ("scale", math.nan),
        ("scale", math.inf),
        ("futures", -1),
        ("decided", -1),
        ("candidates", 0.5),
        ("future_steps", 0),
        ("margin", math.nan),
        ("price", -1.0),
    ],
)
def test_options_out_of_range_are_named(name, value):
    with pytest.raises(ValueError, match=rf"PlanConfig: {name} must"):
        PlanConfig(**{name: value})


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"lengths": torch.tensor([[0]])}, r"horizons lie in 1\.\.5 tokens"),
        ({"lengths": torch.tensor([[6]])}, r"horizons lie in 1\.\.5 tokens"),
        ({"lengths": torch.tensor([2])}, r"horizons must be \(1, lengths\)"),
        ({"start": START[0]}, r"observations must be \(B, 2\), got \(2,\)"),
        ({"aim": GOAL[0]}, r"goals must be \(1, 2\), one for each start, got \(2,\)"),
        ({"aim": GOAL[:, :1]}, r"goals must be \(1, 2\)"),
        ({"aim": GOAL.repeat(2, 1)}, r"goals must be \(1, 2\)"),
        ({"aim": GOAL * math.nan}, "known tokens must be finite"),
        ({"start": START * math.inf}, "known tokens must be finite"),
    ],
)
def test_what_does_not_fit_is_named(model, changes, sentence):
    with pytest.raises(ValueError, match=sentence):
        plan(model, **changes)


def test_futures_that_are_none_are_said_once_they_are_used(model):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        plan(model, futures=2)  # the guide is off
        plan(model, futures=2, scale=1.0)
    with pytest.warns(UserWarning, match="draws no futures"):
        plan(model, futures=2, future_steps=1, scale=1.0)


@pytest.mark.parametrize("candidates", [0, 20])
def test_a_cost_meets_the_same_starts_in_all_futures(model, candidates):
    """A user's cost may hold a goal for each start: it is asked for the futures of one candidate of every start at a time."""
    upwards = torch.tensor([1.0, -1.0])

    def cost(x):
        return -upwards * x.sum(-1).mean(-1)

    options = {"goal": "guided", "uncertainty": 2.0, "futures": 2, "future_steps": 2, "candidates": candidates}
    found = plan(model, START.repeat(2, 1), None, own=cost, lengths=torch.tensor([[3, 5]] * 2), samples=2, **options)
    high, low = found.observations[:, 1:, -1].mean(1)
    assert bool((high > low).all())
