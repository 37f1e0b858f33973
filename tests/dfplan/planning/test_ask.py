"""What planners are asked for: which values are taken and which are refused."""

import math

import numpy as np
import pytest

from dfplan.planning.ask import Ask


def low(x):
    return x[..., 1].mean(-1)


def test_one_function_stands_for_a_sequence_of_one():
    assert Ask(costs=low).costs == (low,) and Ask(constraints=[low, low]).constraints == (low, low)
    assert Ask().costs == () and not Ask((1.0, 2.0)).steered and Ask(costs=low).steered and Ask(constraints=low).steered


@pytest.mark.parametrize("name", ["costs", "constraints"])
@pytest.mark.parametrize("wrong", [3, "low", [low, 3], None])
def test_what_is_no_function_is_refused(name, wrong):
    with pytest.raises(ValueError, match=f"{name} must be functions of observations"):
        Ask(**{name: wrong})


@pytest.mark.parametrize("wrong", [math.nan, math.inf, "much", True, [1.0]])
def test_a_return_is_a_finite_number(wrong):
    with pytest.raises(ValueError, match="return that is asked for must be a finite number"):
        Ask(return_=wrong)
    assert (
        Ask(return_=3).return_ == 3
        and Ask(return_=np.float32(2)).return_ == 2
        and Ask(return_=np.int64(1)).return_ == 1
    )
