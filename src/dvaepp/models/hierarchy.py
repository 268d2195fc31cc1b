"""The local variables' hierarchy, generative and inferred (Sec. 6.1, Fig. 3)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from dvaepp.models.local import LocalGroup, LocalVariables
from dvaepp.networks.precision import full
from dvaepp.networks.residual import ONE_CELL, Cells, output
from dvaepp.smoothings.base import Smoothing


class LocalHierarchy(nn.Module):
    """prod_j p(h_j | zeta, h_<j), and with features of x prod_j q(h_j | x, zeta, h_<j), all at one resolution.

    A state s_j tells p all that it knows: s_1, of zeta and of whatever was drawn before this hierarchy, then
    s_j+1 = cell_j(s_j + W_j h_j). q sees s_j and x's features; its parameters are p's plus what a residual network
    adds, so that q begins as p. Of no groups it is the identity.
    """

    def __init__(
        self,
        groups: int,
        variables: int,
        kind: LocalVariables,
        *,
        channels: int,
        features: int,
        cells: Cells = ONE_CELL,
    ) -> None:
        super().__init__()
        self.kind, self.variables = kind, variables

        def residual() -> nn.Sequential:
            return nn.Sequential(*cells.alike(channels))

        width = kind.width * variables
        self.priors = nn.ModuleList(output(channels, width) for _ in range(groups))
        self.meetings = nn.ModuleList(nn.Conv2d(channels + features, channels, 1, bias=False) for _ in range(groups))
        self.differences = nn.ModuleList(nn.Sequential(residual(), output(channels, width)) for _ in range(groups))
        self.entries = nn.ModuleList(nn.Conv2d(variables, channels, 1, bias=False) for _ in range(groups))
        self.cells = nn.ModuleList(residual() for _ in range(groups))

    def forward(
        self,
        state: Float[Tensor, "batch channels size size"],
        smoothing: Smoothing,
        features: Float[Tensor, "batch features size size"] | None = None,
        frozen: bool = False,
        given: Sequence[Float[Tensor, "batch variables size size"]] = (),
    ) -> tuple[Float[Tensor, "batch channels size size"], tuple[LocalGroup, ...]]:
        """The state after all groups, and the groups: `given`, then drawn from q where there are features, else from p.

        `frozen` keeps gradients from q's parameters.
        """
        groups = []
        for j, cell in enumerate(self.cells):
            parameters = full(self.priors[j](state))
            p = q = self.kind.distribution(parameters, smoothing)
            if features is not None:
                meeting = self.meetings[j](torch.cat([state, features], 1))
                posterior = parameters + full(self.differences[j](meeting))
                q = self.kind.distribution(posterior.detach() if frozen else posterior, smoothing)
            h = given[j] if j < len(given) else q.rsample() if q.has_rsample else q.sample()
            groups.append(LocalGroup(self.kind, q, p, h))
            state = cell(state + self.entries[j](h))
        return state, tuple(groups)
