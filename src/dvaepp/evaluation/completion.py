"""Missing values drawn given those that are there: p(x_missing | x_observed) of the binary model."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from dvaepp.errors import InputError
from dvaepp.likelihoods.base import Likelihood
from dvaepp.models.base import Model, Trace, measuring, unchecked
from dvaepp.models.pyramid import PyramidLikelihood
from dvaepp.numerics import whole
from dvaepp.randomness import stream_seed
from dvaepp.smoothings.binary import hard


@dataclass(frozen=True, repr=False)
class Completion:
    """Examples (n, pixels) whose missing values are filled in; those observed are as they were given.

    sample: one draw of each from about p(x_missing | x_observed). mean: of p(x | z, h) over the second half of the
    chain, about E[x_missing | x_observed]; of categories the one drawn most often there. acceptance (n,): the share of
    proposals that were accepted.
    """

    sample: Float[Tensor, "n pixels"]
    mean: Float[Tensor, "n pixels"]
    acceptance: Float[Tensor, " n"]


def complete(
    model: Model, x: Float[Tensor, "n pixels"], missing: Bool[Tensor, "n pixels"], sweeps: int = 200, *, seed: int = 0
) -> Completion:
    """A chain for each example whose law is p(x_missing, z, h | x_observed), by Metropolis within Gibbs.

    A sweep proposes (z', h') ~ q(z, h | x) and accepts with probability min(1, w(z', h') / w(z, h)), w = p(x, z, h) /
    q(z, h | x), in which log Z cancels; then it draws x_missing ~ p(x | z, h). It begins at a sample of the prior. What
    x holds where it is missing is of no account. Alternating q(z, h | x) and p(x | z, h) without accepting would have
    another law than the model's.

    Mattei & Frellsen, Leveraging the exact likelihood of deep latent variable models (2018), Sec. 3.2. Raises
    InputError where `missing` has another shape than x, and for a decoder that conditions on pixels, under which those
    that are missing are not independent given z and h.
    """
    sweeps = whole("sweeps", sweeps)
    if missing.shape != x.shape:
        raise InputError(f"missing must have the shape of x, {tuple(x.shape)}, not {tuple(missing.shape)}")
    with measuring(model, stream_seed("completion", seed)), unchecked():
        start = model.decode(model.prior.sample(len(x)))
        if isinstance(start, PyramidLikelihood):
            raise InputError("a decoder that conditions on coarser pixels completes no examples: pixels must be free")
        x = torch.where(missing, start.sample(), x)
        first = model(x, hard)
        zeta, h = first.posterior.zeta, [group.h for group in first.local]
        accepted, total, counts = x.new_zeros(len(x)), torch.zeros_like(x), _Counts(model, x)
        for sweep in range(sweeps):
            proposed, current = model(x, hard), model.given(x, zeta, hard, h)
            log_ratio = _log_weight(model, proposed, x) - _log_weight(model, current, x)
            accepts = torch.rand_like(log_ratio).log() < log_ratio
            chosen = partial(_chosen, accepts)
            zeta = chosen(proposed.posterior.zeta, zeta)
            h = [chosen(new.h, old) for new, old in zip(proposed.local, h, strict=True)]
            x = torch.where(missing, chosen(proposed.likelihood.sample(), current.likelihood.sample()), x)
            accepted += accepts
            if sweep >= sweeps // 2:
                total += chosen(proposed.likelihood.mean, current.likelihood.mean)
                counts.add(x)
        mean = torch.where(missing, counts.commonest(total / (sweeps - sweeps // 2)), x)
        return Completion(x, mean, accepted / sweeps)


class _Counts:
    """How often each category was drawn of the values that are categories."""

    def __init__(self, model: Model, x: Tensor) -> None:
        likelihood = getattr(model, "likelihood", None)
        laws = likelihood.of_values(x.shape[1]) if isinstance(likelihood, Likelihood) else ()
        self.named = [place for place, law in enumerate(laws) if law.one_hot]
        self.most = max((law.one_hot for law in laws), default=0)
        self.counts = x.new_zeros(len(x), len(self.named), self.most)

    def add(self, x: Float[Tensor, "n pixels"]) -> None:
        """Count these draws."""
        if self.named:
            self.counts += F.one_hot(x[:, self.named].long(), self.most)

    def commonest(self, mean: Float[Tensor, "n pixels"]) -> Float[Tensor, "n pixels"]:
        """The mean, but of categories the one that was drawn most often."""
        if not self.named:
            return mean
        return mean.index_copy(1, torch.tensor(self.named, device=mean.device), self.counts.argmax(-1).to(mean))


def _log_weight(model: Model, trace: Trace, x: Tensor) -> Float[Tensor, " n"]:
    """log p(x, z, h) - log q(z, h | x) + log Z, nats."""
    log_p = model.prior.log_prob(trace.posterior.zeta, hard, unnormalised=True)
    log_weight: Tensor = trace.likelihood.log_prob(x) + log_p - trace.posterior.log_prob() + trace.local_log_ratio()
    return log_weight


def _chosen(accepts: Bool[Tensor, " n"], new: Tensor, old: Tensor) -> Tensor:
    """Of each example the new one where it is accepted."""
    return torch.where(accepts.view(-1, *[1] * (new.ndim - 1)), new, old)
