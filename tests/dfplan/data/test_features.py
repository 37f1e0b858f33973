import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest

import dfplan
from dfplan.config_json import config_from_json, config_to_json
from dfplan.data import features as module
from dfplan.data.features import Features, asked, completed

DICT = Features(("observation", "achieved_goal"), goal_key="desired_goal", goal_columns=(3, 4), widths=(3, 2))


@pytest.fixture
def registry(monkeypatch):
    """What is registered in a test is forgotten after it."""
    monkeypatch.setattr(module, "_FUNCTIONS", {})


def raw(*leading: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    widths = {"achieved_goal": 2, "desired_goal": 2, "observation": 3}
    return {key: rng.standard_normal((*leading, width)) for key, width in widths.items()}


@pytest.mark.parametrize("leading", [(), (4,), (2, 3)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_entries_are_joined_columns_kept_and_a_function_applied_for_any_leading_sizes(registry, leading, dtype):
    @dfplan.register_features("apart")
    def apart(x):
        return np.concatenate([x, x[..., :1] - x[..., 1:2]], axis=-1)

    seen = {key: value.astype(dtype) for key, value in raw(*leading).items()}
    joined = np.concatenate([seen["observation"], seen["achieved_goal"]], axis=-1)
    np.testing.assert_array_equal(DICT(seen), joined)
    chosen = Features(("observation", "achieved_goal"), (4, 0), "apart")
    result = chosen(seen)
    assert result.dtype == dtype and result.shape == (*leading, 3)
    np.testing.assert_array_equal(
        result, np.stack([joined[..., 4], joined[..., 0], joined[..., 4] - joined[..., 0]], -1)
    )


def test_an_array_stays_as_it_is_and_whole_numbers_become_floats():
    x = np.zeros((2, 3), np.float32)
    assert Features()(x) is x and Features().as_recorded and not Features(columns=(1,)).as_recorded
    assert Features()([1, 2, 3]).dtype == Features()((1.0, 2.0)).dtype == np.float64


def test_a_tuple_is_joined_by_the_places_of_its_entries():
    features = completed(Features(), None, (np.zeros((5, 2)), np.ones((5, 1))))
    assert features == Features(("0", "1"), widths=(2, 1))
    np.testing.assert_array_equal(features((np.array([4, 5]), np.array([6]))), [4, 5, 6])
    np.testing.assert_array_equal(Features(("1",))((np.array([4, 5]), np.array([6]))), [6])


def test_a_goal_is_given_as_such_or_taken_from_a_whole_observation(registry):
    seen = raw(4)
    np.testing.assert_array_equal(DICT.goal(seen), seen["desired_goal"])
    np.testing.assert_array_equal(DICT.goal([1.0, 2.0]), [1, 2])
    achieved = Features(DICT.keys, goal_columns=(4, 3))  # no entry is the goal: the place in this observation is
    np.testing.assert_array_equal(achieved.goal(seen), seen["achieved_goal"][:, ::-1])
    asked_of = Features(columns=(5, 1, 3), goal_columns=(1, 2), widths=(6,))
    np.testing.assert_array_equal(asked_of.goal(np.arange(6)), [1, 3])
    np.testing.assert_array_equal(asked_of.goal(np.arange(12).reshape(2, 6)), [[1, 3], [7, 9]])
    np.testing.assert_array_equal(asked_of.goal(np.arange(4).reshape(2, 2)), [[0, 1], [2, 3]])
    np.testing.assert_array_equal(Features(goal_columns=(1, 0), widths=(2,)).goal([8, 9]), [8, 9])  # a goal as it is
    np.testing.assert_array_equal(Features(goal_columns=(2,)).goal(np.arange(6)), [2])


@pytest.mark.parametrize(
    ("features", "goal", "message"),
    [
        (Features(), [1, 2], "the features name no goal columns"),
        (
            Features(goal_columns=(0, 1), widths=(6,)),
            np.zeros(5),
            r"\(..., 2\), or .* whole observation \(..., 6\), got \(5,\)",
        ),
        (Features(goal_columns=(0, 4)), np.zeros(3), r"that has the columns \(0, 4\), got \(3,\)"),
        (
            DICT,
            np.zeros(3),
            r"\(..., 2\), or stand in a whole observation with the entries \('observation', 'ach.* got \(3,\)",
        ),
        (DICT, {"observation": np.zeros(3)}, r"with the entry 'desired_goal'; it has \['observation'\]"),
        (DICT, raw() | {"desired_goal": np.zeros(3)}, r"entry 'desired_goal' must be \(..., 2\), got \(3,\)"),
        (DICT, "north", "a goal must be real numbers"),
        (DICT, None, "a goal must be real numbers .* got a NoneType"),
    ],
)
def test_what_is_no_goal_is_refused_with_both_widths(features, goal, message):
    with pytest.raises(ValueError, match=message):
        features.goal(goal)


@pytest.mark.parametrize(
    ("features", "observation", "message"),
    [
        (
            DICT,
            np.zeros(5),
            r"must be a Dict or Tuple with the entries \('observation', 'achieved_goal'\), got float64 \(5,\)",
        ),
        (DICT, {"observation": np.zeros(3)}, r"lacks the entry 'achieved_goal'; it has \['observation'\]"),
        (DICT, raw() | {"observation": np.zeros(4)}, r"entry 'observation' must be \(..., 3\), got \(4,\)"),
        (DICT, raw() | {"observation": np.zeros((7, 3))}, "must have the same leading sizes, got"),
        (DICT, raw() | {"observation": ["a", "b", "c"]}, r"entry 'observation' must be real numbers \(..., columns\)"),
        (Features(), raw(), r"an observation must be real numbers .* got a Dict of \['achieved_goal', "),
        (Features(), [[1.0], [1.0, 2.0]], "an observation must be real numbers .* got a list of 2"),
        (Features(), np.float64(3), "an observation must be real numbers"),
        (Features(columns=(0, 7)), np.zeros(3), r"columns \(0, 7\) are asked of an observation of 3 columns"),
        (Features(widths=(4,)), np.zeros(3), r"an observation must be \(..., 4\), got \(3,\)"),
        (Features(function="gone"), np.zeros(3), "'gone'; first import the module that does @dfplan.register_features"),
    ],
)
def test_what_is_no_such_observation_is_refused(features, observation, message):
    with pytest.raises(ValueError, match=message) as raised:
        features(observation)
    assert "\n" not in str(raised.value)


def test_a_function_that_is_not_for_each_observation_by_itself_is_refused(registry):
    dfplan.register_features("mean")(lambda x: x.mean(axis=0))
    with pytest.raises(
        ValueError, match=r"the features 'mean' must return \(..., F\) for \(..., D\), got \(3,\) for \(5, 3\)"
    ):
        Features(function="mean")(np.zeros((5, 3)))


def test_a_name_means_one_function(registry):
    def first(x):
        return x

    dfplan.register_features("a")(first)
    again = SimpleNamespace(**{"__module__": first.__module__, "__qualname__": first.__qualname__})
    dfplan.register_features("a")(again)  # a cell of a notebook that is run once more
    assert module.registered("a") is again
    with pytest.raises(ValueError, match=r"the features 'a' are registered already, by .*first"):
        dfplan.register_features("a")(lambda x: x)
    for name in ("", None):
        with pytest.raises(ValueError, match="features are registered by a name"):
            dfplan.register_features(name)


def test_features_may_be_asked_for_in_four_ways(registry):
    @dfplan.register_features("same")
    def same(x):
        return x

    assert asked(None) == Features() and asked(DICT) is DICT
    assert asked(same) == asked("same") == Features(function="same")
    assert asked([2, 0]) == asked(np.array([2, 0])) == Features(columns=(2, 0)) and asked(range(2)).columns == (0, 1)
    for bad, message in (
        ("gone", "first import the module"),
        (lambda x: x, "needs a name that weights can keep"),
        ((0.5,), "features must be columns"),
        ((-1,), "features must be columns"),
        ({"keys": "a"}, "features must be columns"),
        ((1, 1), "columns must differ"),
    ):
        with pytest.raises(ValueError, match=message):
            asked(bad)


def test_what_data_say_completes_the_features(registry):
    dfplan.register_features("half")(lambda x: x[..., :2])
    assert completed(Features(), None, raw(6)) == DICT
    assert completed(Features(), (0,), raw(6)) == Features(DICT.keys, goal_columns=(0,), widths=(3, 2))
    assert completed(Features(), (0, 1), raw(6)).goal_key == "desired_goal"  # as wide: it is given in these columns
    assert completed(Features(), (), raw(6)) == Features(DICT.keys, widths=(3, 2))
    extra = completed(Features(), None, raw(6) | {"camera": np.zeros((6, 1))})
    assert extra.keys == ("camera", "observation", "achieved_goal") and extra.goal_columns == (4, 5)
    nested = {"achieved_goal": {"b": np.ones((6, 1)), "a": np.zeros((6, 2))}, "observation": np.zeros((6, 3))}
    nested["desired_goal"] = nested["achieved_goal"]
    kitchen = completed(Features(), None, nested)
    assert kitchen.goal_columns == (3, 4, 5) and kitchen.goal(nested)[0].tolist() == [0, 0, 1]
    some = nested | {"desired_goal": {"b": np.ones((6, 1))}}  # a task of its own may leave the rest open
    with pytest.raises(
        ValueError, match=r"'desired_goal' has 1 columns, but a goal \(3, 4, 5\); give its columns as goal="
    ):
        completed(Features(), None, some)
    assert completed(Features(), (5,), some).goal(some)[0].tolist() == [1]
    assert completed(Features(), (), some).goal_columns == ()
    with pytest.raises(ValueError, match=r"where does 'achieved_goal' stand .* goal=\(\) for no goal"):
        completed(Features(function="half"), None, raw(6))
    assert completed(Features(function="half"), (0, 1), raw(6)).goal_key == "desired_goal"
    with pytest.raises(ValueError, match=r"goal must be different columns of the observation, in 0..1, got \(0, 2\)"):
        completed(Features(function="half"), (0, 2), np.zeros((6, 4)))
    with pytest.raises(ValueError, match=r"columns must be different columns of the observation, in 0\.\.3"):
        completed(Features(columns=(4,)), None, np.zeros((6, 4)))


def test_features_are_kept_as_json_by_names_only():
    assert config_from_json(Features, config_to_json(DICT)) == DICT
    assert hash(DICT) == hash(config_from_json(Features, config_to_json(DICT)))
    for bad in (
        {"columns": (0, 0)},
        {"columns": (-1,)},
        {"keys": (1,)},
        {"widths": (1, 2)},
        {"keys": ("a",), "widths": (0,)},
    ):
        with pytest.raises(ValueError, match="Features"):
            Features(**bad)


def test_importing_dfplan_is_cheap_and_loading_data_needs_no_torch():
    code = (
        "import sys, dfplan; assert not {'numpy', 'torch'} & set(sys.modules); dfplan.load; dfplan.register_features; "
    )
    subprocess.run([sys.executable, "-c", code + "assert 'torch' not in sys.modules"], check=True)
    assert {"load", "register_features"} <= set(dir(dfplan))
    with pytest.raises(AttributeError, match="module 'dfplan' has no attribute 'lode'"):
        dfplan.lode  # noqa: B018


def test_an_installed_package_registers_its_features_when_they_are_asked_for(registry, monkeypatch, tmp_path):
    (tmp_path / "plugin_of_a_test.py").write_text(
        "from dfplan.data.features import register_features\n@register_features('theirs')\ndef theirs(x):\n    return 2 * x\n"
    )
    (tmp_path / "theirs-1.dist-info").mkdir()
    (tmp_path / "theirs-1.dist-info" / "entry_points.txt").write_text("[dfplan.features]\ntheirs = plugin_of_a_test\n")
    (tmp_path / "theirs-1.dist-info" / "METADATA").write_text("Name: theirs\nVersion: 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert Features(function="theirs")(np.ones(3)).tolist() == [2, 2, 2]
    with pytest.raises(ValueError, match="no features are registered as 'another'"):
        module.registered("another")


def test_weights_of_a_shipped_robot_load_without_a_further_import_and_without_torchs_compiler():
    """The compiler, which takes two seconds to import, is loaded by whatever computes on shapes alone."""
    words = (
        "import sys; from dfplan.agents.loading import from_pretrained as load;"
        "load('maze2d-umaze-iql'); load('maze2d-umaze-dv'); load('maze2d-umaze-diffuser');"
        "print(load('cube-single').goal_dim, 'torch._dynamo' in sys.modules)"
    )
    found = subprocess.run([sys.executable, "-c", words], capture_output=True, text=True, check=False)
    assert found.stdout == "3 False\n", found.stderr
