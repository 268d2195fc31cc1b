"""What relates one estimator to another: exactly where it can be, else paired and within five standard errors."""

import copy
import itertools
import math
from collections.abc import Callable

import pytest
import torch
from registry import all_states, log_bernoulli
from torch import Tensor, nn

from dvaepp.errors import InputError
from dvaepp.estimators import (
    ARM,
    ARMS,
    DARN,
    NVIL,
    REBAR,
    RELAX,
    VIMCO,
    DisARM,
    DoubleControlVariates,
    Estimator,
    GumbelRao,
    LeaveOneOut,
    LocalExpectation,
    MuProp,
    PiecewiseLinear,
    Reinforce,
    ReinMax,
    RelaxedBernoulli,
    StraightThrough,
    StraightThroughGumbel,
)
from dvaepp.estimators.relaxed_control import RelaxedControl
from dvaepp.smoothings import binary

Function = Callable[[Tensor], Tensor]


def curved(b: Tensor) -> Tensor:
    """A function of four bits without symmetry."""
    a = torch.tensor([1.3, -0.7, 0.4, 2.0], dtype=torch.float64)
    return torch.exp(b @ a / 2) - 2 * torch.sin(3 * b[..., 0] + b[..., 2] * b[..., 3]) + b[..., 1] * b[..., 3]


LOGITS = torch.tensor([0.8, -1.7, 0.0, 2.5], dtype=torch.float64)


def exact_gradient(f: Function, logits: Tensor = LOGITS) -> Tensor:
    leaf, states = logits.clone().requires_grad_(), all_states(len(logits))
    return torch.autograd.grad((log_bernoulli(leaf, states).exp() * f(states)).sum(), leaf)[0]


def gradient(
    estimator: Estimator, f: Function, noise: Tensor, logits: Tensor = LOGITS, context: Tensor | None = None
) -> Tensor:
    """The estimator's, for each row of the noise."""
    rows = logits.repeat(noise.shape[1], 1).requires_grad_()
    return torch.autograd.grad(estimator(f, rows, context, noise=noise).sum(), rows)[0]


def noise(estimator: Estimator, rows: int = 500) -> Tensor:
    return torch.rand(estimator.uniforms, rows, len(LOGITS), dtype=torch.float64)


# --- antithetic draws -------------------------------------------------------------------------------------------------


def every_pair() -> tuple[Tensor, Tensor]:
    """Numbers u for all antithetic pairs of four bits, two Gauss nodes in each pair's interval, and their weights."""
    choices = []
    for q in torch.sigmoid(LOGITS).tolist():
        edges, nodes = [0.0, min(q, 1 - q), max(q, 1 - q), 1.0], []
        for low, high in itertools.pairwise(edges):
            for node in (-1, 1):
                if high > low:
                    nodes.append(((low + high) / 2 + node * (high - low) / 2 / math.sqrt(3), (high - low) / 2))
        choices.append(nodes)
    rows = list(itertools.product(*choices))
    u = torch.tensor([[node for node, _ in row] for row in rows], dtype=torch.float64)
    weight = torch.tensor([math.prod(weight for _, weight in row) for row in rows], dtype=torch.float64)
    return u[None], weight


def test_arm_and_disarm_are_unbiased_and_disarm_never_varies_more_by_enumeration_of_all_pairs() -> None:
    u, weight = every_pair()
    assert float(weight.sum()) == pytest.approx(1)
    for f in (curved, lambda b: b.sum(-1), lambda b: b.prod(-1)):
        exact, second = exact_gradient(f), []
        for estimator in (ARM(), DisARM()):  # quadratic in each u within its interval: two nodes are exact
            rows = gradient(estimator, f, u)
            torch.testing.assert_close(weight @ rows, exact)
            second.append(weight @ rows**2 - exact**2)
        arm, disarm = second
        assert bool((disarm <= arm + 1e-12).all())
        assert float(disarm.sum()) < 0.99 * float(arm.sum())


def test_disarm_is_arm_s_expectation_given_the_pair() -> None:
    u, weight = every_pair()
    pairs = DisARM().sample(LOGITS.expand(u.shape[1], -1), u).transpose(0, 1).flatten(1)
    _, group = pairs.unique(dim=0, return_inverse=True)
    of_arm, of_disarm = (
        torch.zeros(int(group.max()) + 1, 4, dtype=torch.float64).index_add_(0, group, weight[:, None] * rows)
        for rows in (gradient(ARM(), curved, u), gradient(DisARM(), curved, u))
    )
    torch.testing.assert_close(of_disarm, of_arm)


def test_arms_of_two_draws_is_disarm() -> None:
    u = noise(ARMS(2), 20_000)
    mine = ARMS(2)
    bits = mine.sample(LOGITS.expand(u.shape[1], -1), u)
    # another way to make the pair of the numbers: compare where DisARM has the same
    waits = -torch.log(u)
    share = (waits[0] / waits.sum(0))[None]
    share = torch.where(LOGITS > 0, share, 1 - share)
    same = (DisARM().sample(LOGITS.expand(u.shape[1], -1), share) == bits).all(0).all(-1)
    assert bool(same.all())
    torch.testing.assert_close(gradient(mine, curved, u), gradient(DisARM(), curved, share))


@pytest.mark.parametrize("samples", [2, 3, 6])
def test_bits_of_arms_have_their_probability_and_repel_each_other(samples: int) -> None:
    rows, estimator = 200_000, ARMS(samples)
    b = estimator.sample(LOGITS.expand(rows, -1), noise(estimator, rows))
    q = torch.sigmoid(LOGITS)
    error = torch.sqrt(q * (1 - q) / rows)
    assert bool(((b.mean(1) - q).abs() < 5 * error).all())
    covariance = (b[0] * b[1]).mean(0) - q * q
    assert bool((covariance < -10 * error * q).all())


# --- deterministic identities -----------------------------------------------------------------------------------------


def test_darn_is_reinmax_at_temperature_1_and_gregor_s_formula_draw_by_draw() -> None:
    u = noise(DARN())
    b = DARN().sample(LOGITS.expand(u.shape[1], -1), u)[0].requires_grad_()
    slope = torch.autograd.grad(curved(b).sum(), b)[0]
    gregor = slope * (b - 0.5) * (b - torch.sigmoid(LOGITS))
    torch.testing.assert_close(gradient(DARN(), curved, u), gregor.detach())
    assert torch.equal(gradient(DARN(), curved, u), gradient(ReinMax(), curved, u))


def test_straight_through_estimators_are_their_smoothings() -> None:
    u = torch.rand(2, 500, 4, dtype=torch.float64)
    for estimator, smoothing in (
        (StraightThrough(), binary.StraightThrough()),
        (ReinMax(1.4), binary.ReinMax(1.4)),
        (StraightThroughGumbel(0.3), binary.StraightThroughGumbel(0.3)),
    ):
        logits = LOGITS.repeat(500, 1).requires_grad_()
        zeta = smoothing(logits).rsample(noise=u)
        torch.testing.assert_close(
            gradient(estimator, curved, u[:1]), torch.autograd.grad(curved(zeta).sum(), logits)[0]
        )


@pytest.mark.parametrize("t", [0.1, 0.7, 3.0])
def test_tuckers_relaxation_is_that_of_his_paper(t: float) -> None:
    """sigmoid(((T^2 + T + 1) / (T + 1) l + log v / (1 - v)) / T), v = 1 - u (Tucker et al. 2017)."""
    u = noise(RelaxedBernoulli(t))
    leaf = LOGITS.repeat(500, 1).requires_grad_()
    v = 1 - u[0]
    s = torch.sigmoid(((t * t + t + 1) / (t + 1) * leaf + (v / (1 - v)).log()) / t)
    estimator = RelaxedBernoulli(t, muprop=True)
    torch.testing.assert_close(estimator.sample(LOGITS.expand(500, -1), u)[0], s.detach())
    expected = torch.autograd.grad(curved(s).sum(), leaf)[0]
    torch.testing.assert_close(gradient(estimator, curved, u), expected)


def test_tuckers_relaxation_is_the_mean_at_high_temperature() -> None:
    u = noise(RelaxedBernoulli(1e6))
    found = RelaxedBernoulli(1e6, muprop=True).sample(LOGITS.expand(500, -1), u)
    torch.testing.assert_close(found[0], torch.sigmoid(LOGITS).expand(500, -1), rtol=0, atol=1e-4)


def test_the_piecewise_linear_relaxation_in_numbers() -> None:
    """beta 5: at q = .9 the slope is 1.25 / .1, at q = .5 it is 1.25 / .26."""
    logits = torch.tensor([[math.log(9), 0.0]], dtype=torch.float64).requires_grad_()
    u = torch.tensor([[[0.88, 0.45]]], dtype=torch.float64)
    s = PiecewiseLinear(5.0).sample(logits, u)[0, 0]
    torch.testing.assert_close(s, torch.tensor([0.75, 0.5 + 0.0625 / 0.26], dtype=torch.float64))
    slope = torch.autograd.grad(s.sum(), logits)[0][0]
    torch.testing.assert_close(slope, torch.tensor([12.5 * 0.09, 1.25 / 0.26 * 0.25], dtype=torch.float64))
    far = torch.tensor([[[0.7, 0.9]]], dtype=torch.float64)
    assert PiecewiseLinear(5.0).sample(logits, far)[0, 0].tolist() == [1.0, 0.0]


@pytest.mark.parametrize(
    "estimator",
    [VIMCO(3), VIMCO(5), LeaveOneOut(3), ARM(), DisARM(), ARMS(3), DoubleControlVariates(samples=3)],
    ids=repr,
)
def test_a_constant_added_to_f_changes_no_gradient(estimator: Estimator) -> None:
    u = noise(estimator)
    shifted = gradient(estimator, lambda b: curved(b) + 50, u)
    torch.testing.assert_close(shifted, gradient(estimator, curved, u), rtol=1e-9, atol=1e-10)


def test_the_normalised_nvil_divides_and_centres_by_what_it_met_before() -> None:
    estimator, ones = NVIL(2, hidden=4, normalise=True).double(), torch.ones(500, 2, dtype=torch.float64)
    u = noise(estimator)
    estimator.centre.fill_(3.0)
    estimator.variance.fill_(9.0)
    moved = copy.deepcopy(estimator).train()
    expected = gradient(estimator.eval(), curved, u, context=ones)
    torch.testing.assert_close(gradient(moved, curved, u, context=ones), expected)  # used before they are moved
    assert float(moved.centre) != 3
    plain = NVIL(2, hidden=4).double()
    plain.load_state_dict(estimator.state_dict())
    torch.testing.assert_close(3 * expected, gradient(plain, lambda b: curved(b) - 3, u, context=ones))
    estimator.variance.fill_(0.04)  # nothing is made longer
    torch.testing.assert_close(gradient(estimator, curved, u, context=ones), 3 * expected)


def test_local_expectations_are_exact_given_the_other_bits() -> None:
    """Averaged over all states with their probabilities nothing is left to chance."""
    states = all_states(4)
    u = (1 - states)[None] * (1 - 2.0**-53)
    probabilities = log_bernoulli(LOGITS, states).exp()
    torch.testing.assert_close(
        probabilities @ gradient(LocalExpectation(), curved, u), exact_gradient(curved), rtol=1e-12, atol=1e-13
    )
    one = LOGITS[:1]
    f = lambda b: torch.exp(b[..., 0])  # noqa: E731
    for row in gradient(LocalExpectation(), f, torch.rand(1, 20, 1, dtype=torch.float64), one):
        torch.testing.assert_close(row, exact_gradient(f, one))


def test_local_expectations_take_an_f_s_own_flips() -> None:
    calls = []

    class Table:
        def __call__(self, b: Tensor) -> Tensor:
            assert b.ndim == 2
            return curved(b)

        def flips(self, b: Tensor) -> Tensor:
            calls.append(b.shape)
            turned = [torch.cat([b[:, :i], 1 - b[:, i : i + 1], b[:, i + 1 :]], 1) for i in range(b.shape[1])]
            return torch.stack([curved(each) for each in turned])

    u = noise(LocalExpectation())
    torch.testing.assert_close(gradient(LocalExpectation(), Table(), u), gradient(LocalExpectation(), curved, u))
    assert calls == [(500, 4)]


def test_double_control_variates_with_alpha_0_are_leave_one_out_and_with_1_exact_for_linear_functions() -> None:
    u = noise(LeaveOneOut(3))
    ours = DoubleControlVariates(samples=3, alpha=0.0)
    torch.testing.assert_close(gradient(ours, curved, u), gradient(LeaveOneOut(3), curved, u))
    linear = lambda b: 3 * b[..., 0] - b[..., 2]  # noqa: E731
    ours = DoubleControlVariates(samples=3, alpha=1.0)
    torch.testing.assert_close(gradient(ours, linear, u), exact_gradient(linear).expand(500, -1))


def test_muprop_is_exact_for_linear_functions() -> None:
    linear = lambda b: 3 * b[..., 0] - b[..., 2]  # noqa: E731
    estimator = MuProp().double()
    torch.testing.assert_close(gradient(estimator, linear, noise(estimator)), exact_gradient(linear).expand(500, -1))


def test_vimco_s_bound_rises_to_the_log_of_the_mean() -> None:
    u = torch.rand(50, 20_000, 4, dtype=torch.float64)
    logits, states = LOGITS.expand(20_000, -1), all_states(4)
    exact = torch.log((log_bernoulli(LOGITS, states).exp() * curved(states).exp()).sum())
    bounds = [VIMCO(samples)(curved, logits, noise=u[:samples]).mean() for samples in (2, 8, 50)]
    assert bounds == sorted(bounds)
    assert 0 < float(exact - bounds[-1]) < 0.25 * float(exact - bounds[0])


# --- what is learned --------------------------------------------------------------------------------------------------


def by_definition(estimator: RelaxedControl, f: Function, c: Function, baseline: Tensor, u: Tensor) -> Tensor:
    """g of a relaxed control variate, the two relaxations apart and differentiated by autograd."""
    leaf = LOGITS.repeat(u.shape[0], 1).requires_grad_()
    q, temperature = torch.sigmoid(leaf), torch.exp(estimator.log_temperature)
    b = (u < q).double().detach()
    within = torch.where(b > 0.5, u / q, (u - q) / (1 - q)).detach()  # v', uniform given b
    v = torch.where(b > 0.5, q * within, q + (1 - q) * within)

    def relaxed(number: Tensor) -> Tensor:
        slack = (leaf - torch.logit(number)) / temperature
        return torch.sigmoid(slack + temperature / (temperature + 1) * leaf if estimator.muprop else slack)

    of_u, of_v = (c(relaxed(number)) for number in (u, v))
    slope = torch.autograd.grad((of_u - of_v).sum(), leaf, create_graph=True)[0]
    return (f(b) - baseline - of_v)[:, None] * (b - q) + slope


@pytest.mark.parametrize("muprop", [True, False])
def test_rebar_and_relax_and_their_loss_are_the_definition_differentiated_twice(muprop: bool) -> None:
    torch.manual_seed(4)
    context = torch.randn(300, 3, dtype=torch.float64)
    for made in (REBAR(3, hidden=4, muprop=muprop), RELAX(4, 3, hidden=4, muprop=muprop, layers=(6,))):
        estimator = made.double()
        for parameter in estimator.parameters():
            nn.init.normal_(parameter, std=0.5)
        u, logits = torch.rand(1, 300, 4, dtype=torch.float64), LOGITS.repeat(300, 1).requires_grad_()
        value, loss = estimator.with_loss(curved, logits, context, noise=u)
        control = estimator.control(curved, context)
        expected = by_definition(estimator, curved, control, estimator.baseline(context, logits), u[0])
        torch.testing.assert_close(torch.autograd.grad(value.sum(), logits, retain_graph=True)[0], expected.detach())
        of_rows = expected.square().sum(-1).mean()
        own = list(estimator.parameters())
        torch.testing.assert_close(loss, of_rows)
        for ours, theirs in zip(torch.autograd.grad(loss, own), torch.autograd.grad(of_rows, own), strict=True):
            torch.testing.assert_close(ours, theirs)
            assert float(ours.abs().max()) > 0


def fit(estimator: nn.Module, steps: int, rows: int = 400) -> None:
    optimizer = torch.optim.Adam(estimator.parameters(), 0.05)
    for _ in range(steps):
        _, loss = estimator.with_loss(curved, LOGITS.repeat(rows, 1), torch.ones(rows, 2, dtype=torch.float64))
        for parameter, slope in zip(
            estimator.parameters(), torch.autograd.grad(loss, list(estimator.parameters())), strict=True
        ):
            parameter.grad = slope
        optimizer.step()


def squares(estimator: Estimator, u: Tensor) -> Tensor:
    """|g|^2 of each row."""
    logits = LOGITS.repeat(u.shape[1], 1).requires_grad_()
    value = estimator(curved, logits, torch.ones(u.shape[1], 2, dtype=torch.float64), noise=u)
    return torch.autograd.grad(value.sum(), logits)[0].square().sum(-1)


def lead(first: Tensor, second: Tensor) -> float:
    """By how many standard errors the first is below the second, pair by pair."""
    difference = second - first
    return float(difference.mean() / difference.std()) * math.sqrt(len(difference))


def test_rebar_learns_to_vary_less_than_nvil_with_its_baseline_and_relax_goes_on_from_it() -> None:
    rebar, relax, nvil = REBAR(2, hidden=4).double(), RELAX(4, 2, hidden=4, layers=(20, 20)).double(), NVIL(2, hidden=4)
    nn.init.constant_(rebar.weight, -8.0)  # eta is 7e-4 at first: NVIL
    u = torch.rand(1, 20_000, 4, dtype=torch.float64)
    nvil.double().baseline.load_state_dict(rebar.baseline.state_dict())
    torch.testing.assert_close(squares(rebar, u), squares(nvil, u), rtol=0.01, atol=0.05)
    fit(rebar, 300)
    nvil.baseline.load_state_dict(rebar.baseline.state_dict())
    assert float(rebar.eta.detach()) > 0.2
    assert lead(squares(rebar, u), squares(nvil, u)) > 5
    relax.load_state_dict(rebar.state_dict(), strict=False)
    torch.testing.assert_close(squares(relax, u), squares(rebar, u))
    fit(relax, 300)
    fit(rebar, 300)
    assert lead(squares(relax, u), squares(rebar, u)) > -5


def test_nvil_and_muprop_learn_baselines_that_lower_their_variance() -> None:
    for estimator in (NVIL(2, hidden=4).double(), MuProp(2, hidden=4).double()):
        u = torch.rand(1, 20_000, 4, dtype=torch.float64)
        before = squares(estimator, u)
        fit(estimator, 300)
        assert lead(squares(estimator, u), before) > 5


def test_a_baseline_sees_context_less_its_mean() -> None:
    mean = torch.tensor([0.3, -2.0])
    estimators = NVIL(2, mean, hidden=4), NVIL(2, hidden=4)
    estimators[1].baseline.network.load_state_dict(estimators[0].baseline.network.state_dict())
    context, logits = torch.randn(5, 2), torch.zeros(5, 3)
    of_centred = estimators[1].baseline(context - mean, logits)
    torch.testing.assert_close(estimators[0].baseline(context, logits), of_centred)


def test_the_normalised_nvil_is_a_shorter_gradient_of_the_same_expectation() -> None:
    estimator, rows = NVIL(2, hidden=4, normalise=True).double(), 400
    context = torch.ones(rows, 2, dtype=torch.float64)
    for _ in range(60):
        estimator.with_loss(lambda b: 30 * curved(b), LOGITS.repeat(rows, 1), context)
    moved = estimator.centre.clone(), estimator.variance.clone()
    assert not estimator.unbiased
    assert float(moved[1]) > 1
    rows = 200_000
    logits = LOGITS.repeat(rows, 1).requires_grad_()
    estimator.eval()
    value = estimator(lambda b: 30 * curved(b), logits, torch.ones(rows, 2, dtype=torch.float64))
    mean = torch.autograd.grad(value.sum(), logits)[0] * estimator.variance.sqrt()
    error = mean.std(0) / math.sqrt(rows)
    assert bool(((mean.mean(0) - 30 * exact_gradient(curved)).abs() < 5 * error).all())
    assert (estimator.centre, estimator.variance) == moved  # in evaluation mode nothing moves
    plain, rows = NVIL(2, hidden=4).double(), 20
    plain.with_loss(curved, LOGITS.repeat(rows, 1), torch.ones(rows, 2, dtype=torch.float64))
    assert (float(plain.centre), float(plain.variance)) == (0, 1)


# --- refusals ---------------------------------------------------------------------------------------------------------


def test_a_baseline_without_its_context_is_refused() -> None:
    logits, f = torch.zeros(5, 4), lambda b: b.sum(-1)
    for estimator in (NVIL(3), MuProp(3), REBAR(3), RELAX(4, 3)):
        for context in (None, torch.zeros(5, 2)):
            with pytest.raises(InputError, match=r"context must be torch.float32 of shape \(5, 3\) here, and is"):
                estimator(f, logits, context)
    with pytest.raises(InputError, match="mean must have context_size=3 entries"):
        NVIL(3, torch.zeros(2))


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda: LeaveOneOut(1), "samples of LeaveOneOut"),
        (lambda: VIMCO(1), "samples of VIMCO"),
        (lambda: ARMS(1), "samples of ARMS"),
        (lambda: DoubleControlVariates(samples=1), "samples of DoubleControlVariates"),
        (lambda: DoubleControlVariates(alpha=math.nan), "alpha"),
        (lambda: GumbelRao(samples=0), "samples of GumbelRao"),
        (lambda: GumbelRao(temperature=0.0), "temperature"),
        (lambda: ReinMax(-1.0), "temperature"),
        (lambda: StraightThroughGumbel(0.0), "temperature"),
        (lambda: RelaxedBernoulli(math.inf), "temperature"),
        (lambda: PiecewiseLinear(0.0), "beta"),
        (lambda: REBAR(temperature=0.0), "temperature"),
        (lambda: RELAX(0), "bits"),
        (lambda: NVIL(0), "context_size"),
    ],
)
def test_settings_that_cannot_be_are_refused_by_name(make: Callable[[], Estimator], name: str) -> None:
    with pytest.raises(InputError, match=name):
        make()


def test_reinforce_is_f_times_the_score() -> None:
    u = noise(Reinforce())
    b = (u[0] < torch.sigmoid(LOGITS)).double()
    leaf = LOGITS.repeat(500, 1).requires_grad_()
    score = torch.autograd.grad(log_bernoulli(leaf, b).sum(), leaf)[0]
    torch.testing.assert_close(gradient(Reinforce(), curved, u), curved(b)[:, None] * score)


def test_what_f_must_be_is_said_in_a_sentence() -> None:
    logits = torch.zeros(5, 4, requires_grad=True)
    for value, message in ((lambda b: b.sum(-1) > 1, "floats, .* not torch.bool"), (lambda b: 3.0, "not a float")):
        with pytest.raises(InputError, match=message):
            DisARM()(value, logits)
    for estimator in (ReinMax(), RelaxedBernoulli(0.3), PiecewiseLinear()):
        with pytest.raises(InputError, match="f must be differentiable in b"):
            estimator(lambda b: (b.sum(-1) > 1).float(), logits)
    with pytest.raises(InputError, match="made for 7 bits, and is given logits of 4"):
        RELAX(7)(lambda b: b.sum(-1), logits)
    with pytest.raises(InputError, match="context must be torch.float32"):
        NVIL(3)(lambda b: b.sum(-1), logits, torch.zeros(5, 3, dtype=torch.float64))
