import torch
from scipy.stats import chi2_contingency, chisquare

from dfplan.diffusion.levels import independent, inpainted, next_token, shared, unknown

K, T = 20, 7


def draw(function, batch=20_000):
    return function(batch, T, K, torch.Generator().manual_seed(0))


def test_independent_levels_are_uniform_at_each_token_and_pairwise_independent():
    k, counted, _ = draw(independent)
    for t in range(T):
        assert chisquare(torch.bincount(k[:, t], minlength=K + 1)).pvalue > 1e-3
    for s, t in [(0, 1), (2, 6), (5, 6)]:
        table = torch.zeros(K + 1, K + 1).index_put_((k[:, s], k[:, t]), torch.tensor(1.0), accumulate=True)
        assert chi2_contingency(table.numpy()).pvalue > 1e-3
    assert torch.equal(counted, k > 0), "a clean token has nothing to be learned from"


def test_shared_is_one_uniform_level_of_noise_for_each_sequence():
    k, counted, _ = draw(shared)
    assert bool((k == k[:, :1]).all()) and bool(counted.all())
    assert k.min() == 1
    assert chisquare(torch.bincount(k[:, 0])[1:]).pvalue > 1e-3


def test_next_token_is_clean_before_and_unknown_after_one_noisy_token():
    k, counted, _ = draw(next_token)
    now = counted.long().argmax(1)
    assert bool((counted.sum(1) == 1).all())
    assert chisquare(torch.bincount(now, minlength=T)).pvalue > 1e-3
    position = torch.arange(T)
    assert bool((k[position < now[:, None]] == 0).all())
    assert bool((k[position > now[:, None]] == K).all())
    noisy = k[counted]
    assert noisy.min() == 1
    assert chisquare(torch.bincount(noisy)[1:]).pvalue > 1e-3


def test_inpainted_tokens_are_clean_and_not_counted_and_the_others_as_drawn():
    drawn = draw(shared, 50)
    known = torch.zeros(T, dtype=torch.bool)
    known[0], known[-1] = True, True
    k, counted, _ = inpainted(drawn, known)
    assert bool((k[:, known] == 0).all()) and not bool(counted[:, known].any())
    assert torch.equal(k[:, ~known], drawn.k[:, ~known]) and bool(counted[:, ~known].all())


def test_what_is_unknown_is_pure_noise_and_not_counted():
    drawn = draw(independent, 30)
    where = torch.arange(T) > torch.randint(0, T, (30, 1))
    k, counted, _ = unknown(drawn, where, K)
    assert bool((k[where] == K).all()) and not bool(counted[where].any())
    assert torch.equal(k[~where], drawn.k[~where]) and torch.equal(counted[~where], drawn.counted[~where])
