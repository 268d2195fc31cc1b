"""What each value of an example costs, against enumeration of all states."""

import pytest
import torch
from registry import all_states, case_model, exact_log_q, images
from scipy import stats
from torch.distributions import Bernoulli

from dvaepp.evaluation import by_column
from dvaepp.likelihoods.standard import PoissonLikelihood
from dvaepp.models.feedforward import FeedForwardVAE
from dvaepp.smoothings.binary import hard


@pytest.mark.parametrize("piece", [1000, 7])
@pytest.mark.parametrize("counts", [False, True], ids=["bits", "counts"])
@torch.no_grad()
def test_what_each_value_costs_is_the_mean_over_all_states(
    counts: bool, piece: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(by_column, "_PIECE", piece)
    model, x, z, n = case_model("directed-2"), images(), all_states(6), 1500
    outputs = model.decoder(z)
    if counts:
        model = FeedForwardVAE(model.encoder, model.prior, model.decoder, hard, PoissonLikelihood())
        law = torch.stack([torch.from_numpy(stats.poisson.logpmf(row.numpy(), outputs.exp().numpy())) for row in x])
    else:
        law = torch.stack([Bernoulli(logits=outputs).log_prob(row.expand_as(outputs)) for row in x])
    q = exact_log_q(model, x).exp()[..., None]
    mean = (q * law).sum(1)
    variance = ((q * law**2).sum(1) - mean**2).mean(0)
    found = by_column.distortion_by_column(model, x.repeat(n, 1))
    assert bool(((found + mean.mean(0)).abs() < 5 * (variance / (2 * n)).sqrt()).all())
