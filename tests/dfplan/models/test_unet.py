"""The temporal U-Net: one level a sequence, conditions that may be missing, and the value built from its blocks."""

import pytest
import torch

from dfplan.models.unet import TemporalUNet, TemporalValue, UNetConfig

B, T, C, K = 3, 10, 4, 50
SMALL = UNetConfig(width=8, multiples=(1, 2), octaves=1)


def network(condition=0, config=SMALL):
    """A network whose every weight is drawn, so that nothing is hidden by what starts at zero."""
    torch.manual_seed(0)
    model = TemporalUNet(C, K, config, condition)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return model.eval()


def tokens(length=T, seed=0):
    g = torch.Generator().manual_seed(seed)
    return torch.randn(B, length, C, generator=g), torch.randint(1, K + 1, (B, 1), generator=g).expand(B, length)


@torch.no_grad()
@pytest.mark.parametrize("length", [2, 3, 8, 13])
@pytest.mark.parametrize("multiples", [(1,), (1, 2), (1, 2, 4)])
def test_any_length_passes_any_number_of_halvings(length, multiples):
    x, k = tokens(length)
    out = network(config=UNetConfig(width=8, multiples=multiples))(x, k)
    assert out.shape == x.shape and out.dtype == torch.float32


@torch.no_grad()
def test_the_level_of_a_sequence_is_the_highest_among_its_tokens():
    model, (x, k) = network(), tokens()
    shown = k.clone()
    shown[:, 0], shown[:, -1] = 0, 0
    assert torch.equal(model(x, shown), model(x, k))
    assert not torch.equal(model(x, (k - 1).clamp(min=0)), model(x, k))


@torch.no_grad()
def test_rows_know_nothing_of_each_other():
    model, (x, k) = network(), tokens()
    alone = torch.cat([model(x[i : i + 1], k[i : i + 1]) for i in range(B)])
    assert torch.allclose(model(x, k), alone, atol=1e-5)


def test_ends_see_each_other_and_every_weight_learns():
    """With time halved twice, far tokens are within sight; zero padding tells a sequence's ends from its middle."""
    model, (x, k) = network(config=UNetConfig(width=8, multiples=(1, 2, 4))), tokens(16)
    x.requires_grad_()
    model(x, k)[:, 0].sum().backward()
    assert bool((x.grad[:, -1].abs().sum(-1) > 0).all())
    assert all(p.grad is not None and bool(p.grad.abs().sum() > 0) for p in model.parameters())


def test_it_starts_by_saying_nothing():
    x, k = tokens()
    assert bool((TemporalUNet(C, K, SMALL)(x, k) == 0).all())


@torch.no_grad()
def test_a_row_of_nan_has_no_condition_and_others_keep_theirs():
    model, (x, k) = network(condition=2), tokens()
    y = torch.tensor([[1.0, 2.0], [float("nan"), 0.0], [3.0, 4.0]])
    given, free = model(x, k, y), model(x, k)
    assert torch.allclose(given[1], free[1]) and bool(given.isfinite().all())
    assert not torch.allclose(given[0], free[0]) and not torch.allclose(given[2], free[2])


def test_a_missing_condition_sends_no_gradient_astray():
    model, (x, k) = network(condition=1), tokens()
    model(x, k, torch.tensor([[1.0], [float("nan")], [2.0]])).square().sum().backward()
    assert all(bool(p.grad.isfinite().all()) for p in model.parameters())
    assert bool(model.condition.none.grad.abs().sum() > 0)


def test_the_value_is_one_number_a_plan_and_learns_a_sum():
    torch.manual_seed(0)
    value, g = TemporalValue(2, SMALL), torch.Generator().manual_seed(0)
    optimizer = torch.optim.Adam(value.parameters(), lr=2e-2)
    for _ in range(80):
        x = torch.randn(64, 9, 2, generator=g)
        loss = (value(x) - x[..., 0].mean(1)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert value(x).shape == (64,)
    assert loss.item() < 0.5 / 9  # a constant guess leaves the variance, 1 / 9


def test_mistakes_get_a_sentence():
    with pytest.raises(ValueError, match="multiple of 8"):
        UNetConfig(width=12)
    with pytest.raises(ValueError, match=r"multiples .* at least 1 item"):
        UNetConfig(multiples=())
