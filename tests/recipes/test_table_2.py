"""Table 2's recipes, literal by literal, in what the built modules, objective and optimiser do (Sec. 7.2)."""

from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import dvaepp
from dvaepp.data.dataset import Dataset
from dvaepp.likelihoods.base import DataSpec
from dvaepp.objectives.base import BoundTerms, Objective
from dvaepp.objectives.bounds import JointBound, MarginalBound
from dvaepp.recipes import catalogue
from dvaepp.recipes.recipe import Recipe, override
from dvaepp.recipes.settings import SIZES
from dvaepp.training.trainer import Trainer

PIXELS, NETWORKS, COLUMNS = 784, ("linear-1", "linear-2", "nonlinear-1", "nonlinear-2"), ("rbm", "joint", "marginal")
CELLS = [(network, column) for network in NETWORKS for column in COLUMNS]


def recipe(network: str, column: str, data: str = "mnist-static", size: Any = "paper") -> Recipe:
    return catalogue.find(f"table-2/{data}/{network}/{column}", size)


def form() -> DataSpec:
    return DataSpec((28, 28), mean(), torch.ones(PIXELS))


def mean() -> Tensor:
    """A mean image from 0 to 1, both ends included."""
    return torch.linspace(0, 1, PIXELS)


@cache
def built(network: str, column: str, data: str = "mnist-static") -> tuple[dvaepp.FeedForwardVAE, Objective]:
    torch.manual_seed(0)
    return recipe(network, column, data).build(form())


def fresh(network: str, column: str) -> dvaepp.FeedForwardVAE:
    return recipe(network, column).build(form())[0]


def images(count: int = 6) -> Tensor:
    return torch.randint(0, 2, (count, PIXELS)).float()


def layers(module: nn.Module) -> list[nn.Module]:
    """The layers with parameters, in their order."""
    return [layer for layer in module.modules() if isinstance(layer, nn.Linear | nn.BatchNorm1d)]


def by_hand(module: nn.Module, inputs: Tensor) -> Tensor:
    """linear, or (linear, normalised with eps .01, tanh) twice and linear: at the start batch norm has gain 1, shift 0
    and running statistics 0 and 1."""
    found = layers(module)
    h = inputs.double()
    for layer in found[:-1]:
        if isinstance(layer, nn.Linear):
            assert layer.bias is None
            h = torch.tanh(h @ layer.weight.double().T / 1.01**0.5)
    last = found[-1]
    assert isinstance(last, nn.Linear)
    return h @ last.weight.double().T + last.bias.double()


def sizes(module: nn.Module) -> list[tuple[int, int]]:
    return [(m.in_features, m.out_features) for m in layers(module) if isinstance(m, nn.Linear)]


def batch_norms(module: nn.Module) -> list[int]:
    return [m.num_features for m in layers(module) if isinstance(m, nn.BatchNorm1d)]


# --- networks ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("network", "column"), CELLS)
def test_networks_have_one_or_two_groups_of_200_and_no_or_two_hidden_layers_of_200(network: str, column: str) -> None:
    model, _ = built(network, column)
    groups, hidden = int(network[-1]), network.startswith("non")
    middle = [(200, 200), (200, 200)] if hidden else []

    def expected(inputs: int, outputs: int) -> list[tuple[int, int]]:
        return [(inputs, 200), (200, 200), (200, outputs)] if middle else [(inputs, outputs)]

    assert [sizes(level) for level in model.encoder.levels] == [expected(PIXELS + 200 * k, 200) for k in range(groups)]
    assert sizes(model.decoder) == expected(200 * groups, PIXELS)
    nets = [*model.encoder.levels, model.decoder]
    if column == "rbm":
        assert isinstance(model.prior, dvaepp.BoltzmannPrior)
    else:
        assert isinstance(model.prior, dvaepp.DirectedPrior)
        assert model.prior.first.bias.tolist() == [0.0] * 200
        assert [sizes(net) for net in model.prior.networks] == [expected(200, 200)] * (groups - 1)
        nets += model.prior.networks
    assert [batch_norms(net) for net in nets] == [[200, 200] if hidden else []] * len(nets)


@pytest.mark.parametrize("network", ["linear-2", "nonlinear-2"])
def test_an_encoder_level_sees_the_centred_image_and_the_earlier_zeta(network: str) -> None:
    model, x, zeta = built(network, "joint")[0].eval(), images(), torch.rand(6, 200)
    first, second = model.encoder.levels
    torch.testing.assert_close(first(x).double(), by_hand(first, x - mean()), rtol=1e-4, atol=1e-4)
    seen = torch.cat([x - mean(), zeta], 1)
    torch.testing.assert_close(second(torch.cat([x, zeta], 1)).double(), by_hand(second, seen), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("network", "column"), CELLS)
def test_zeta_goes_on_as_it_was_drawn_strictly_between_0_and_1(network: str, column: str) -> None:
    model, x = built(network, column)[0].eval(), images()
    inputs: list[Tensor] = []
    nets = [*model.encoder.levels[1:], model.decoder]
    hooks = [net.register_forward_pre_hook(lambda _, given: inputs.append(given[0])) for net in nets]
    trace = model(x)
    for hook in hooks:
        hook.remove()
    zetas = trace.posterior.zetas
    if len(zetas) > 1:
        assert torch.equal(inputs[0], torch.cat([x, zetas[0]], 1))
    assert torch.equal(inputs[-1], torch.cat(zetas, 1))
    zeta = trace.posterior.zeta
    assert bool(((zeta >= 0) & (zeta <= 1)).all())
    assert float(((zeta > 0.02) & (zeta < 0.98)).double().mean()) > 0.5


@pytest.mark.parametrize("network", NETWORKS)
def test_the_decoder_adds_the_fixed_logit_of_the_clipped_mean(network: str) -> None:
    model = built(network, "rbm")[0].eval()
    zeta = torch.rand(6, 200 * int(network[-1]))
    clipped = mean().double().clip(0.001, 0.999)
    logits = by_hand(model.decoder, zeta) + torch.log(clipped / (1 - clipped))
    decoded = model.decode(zeta)
    torch.testing.assert_close(decoded.mean.double(), torch.sigmoid(logits), rtol=1e-4, atol=1e-5)
    x = images()
    log_prob = torch.where(x > 0.5, torch.sigmoid(logits), torch.sigmoid(-logits)).log().sum(1)
    torch.testing.assert_close(decoded.log_prob(x).double(), log_prob, rtol=1e-4, atol=1e-3)


def test_the_logit_of_the_mean_is_not_trained() -> None:
    model = fresh("nonlinear-1", "joint").eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    torch.testing.assert_close(model.decode(torch.rand(2, 200)).mean[0].detach(), mean().clip(0.001, 0.999))


def test_batch_norm_has_eps_a_hundredth_and_momentum_a_fifth() -> None:
    model, x = fresh("nonlinear-1", "joint").train(), images(50)
    level = model.encoder.levels[0]
    level(x)
    linear, norm = layers(level)[:2]
    assert isinstance(linear, nn.Linear)
    field = (x - mean()) @ linear.weight.T
    # Running statistics start at 0 and 1 and move a fifth of the way.
    torch.testing.assert_close(norm.running_mean, 0.2 * field.mean(0), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(norm.running_var, 0.8 + 0.2 * field.var(0), rtol=1e-4, atol=1e-5)
    small = 0.01 * torch.randn(50, 200)
    expected = (small - small.mean(0)) / (small.var(0, unbiased=False) + 0.01) ** 0.5
    torch.testing.assert_close(norm(small), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("network", ["linear-2", "nonlinear-2"])
@pytest.mark.parametrize("column", ["joint", "marginal"])
def test_the_directed_prior_maps_zeta_1_as_it_is_to_the_logits_of_z_2(network: str, column: str) -> None:
    prior, zeta = built(network, column)[0].eval().prior, torch.rand(6, 400)
    logits = prior.logits(zeta)
    assert not logits[:, :200].any()
    torch.testing.assert_close(
        logits[:, 200:].double(), by_hand(prior.networks[0], zeta[:, :200]), rtol=1e-4, atol=1e-4
    )


# --- prior and smoothing ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("network", "half"), [("1", 100), ("2", 200)])
@pytest.mark.parametrize("kind", ["linear-", "nonlinear-"])
def test_the_rbm_is_cut_in_half_starts_at_zero_and_has_1000_chains_of_40_sweeps(
    kind: str, network: str, half: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    prior = built(kind + network, "rbm")[0].prior
    machine = prior.machine
    assert machine.blocks == (half, half)
    assert [p.shape for p in machine.couplings] == [(half, half)]
    assert not any(bool(p.any()) for p in machine.parameters())
    assert not prior.exact
    assert prior.states.shape == (1000, 2 * half)
    swept: list[int] = []
    monkeypatch.setattr(type(machine), "gibbs", lambda self, z, sweeps, noise=None: swept.append(sweeps) or z)
    prior.refresh()
    assert swept == [40]


BETA = {
    ("mnist-static", "linear-1"): {12},
    ("mnist-static", "nonlinear-1"): {14},
    ("mnist-static", "nonlinear-2"): {10},
    ("omniglot", "linear-1"): {14},
    ("omniglot", "nonlinear-1"): {12},
    ("omniglot", "nonlinear-2"): {10},
}


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("data", ["mnist-static", "omniglot"])
@pytest.mark.parametrize(("network", "column"), CELLS)
def test_the_smoothing_is_exponential_with_the_beta_of_data_and_network(
    network: str, column: str, data: str, size: str
) -> None:
    by_validation = {8, 10, 12, 14}
    allowed = BETA.get((data, network), by_validation) if column == "rbm" else by_validation
    settings = recipe(network, column, data, size)
    assert settings.model.smoothing.beta in allowed
    assert settings.training.beta is None  # constant


@pytest.mark.parametrize(("cell", "betas"), BETA.items())
def test_the_built_smoothing_is_the_exponential_pair(cell: tuple[str, str], betas: set[float]) -> None:
    data, network = cell
    (beta,) = betas
    smoothing = built(network, "rbm", data)[0].smoothing
    zeta = torch.tensor([0.0, 0.25, 1.0], dtype=torch.float64)
    # r(zeta | 0) = beta exp(-beta zeta) / (1 - exp(-beta)) on [0, 1]; log r(zeta | 1) / r(zeta | 0) = beta (2 zeta - 1)
    density = beta * torch.exp(-beta * zeta) / (1 - torch.exp(torch.tensor(-float(beta), dtype=torch.float64)))
    torch.testing.assert_close(smoothing.log_prob0(zeta).exp(), density)
    torch.testing.assert_close(smoothing.log_ratio(zeta), beta * (2 * zeta - 1))


# --- objective and optimiser ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize(
    ("column", "objective"),
    [("rbm", JointBound()), ("joint", JointBound()), ("marginal", MarginalBound())],
)
def test_each_column_has_its_bound(column: str, objective: Objective, network: str) -> None:
    assert built(network, column)[1] == objective
    assert recipe(network, column, "omniglot").objective == recipe(network, column).objective


def test_the_marginal_column_scores_z_summed_out() -> None:
    model, objective = built("linear-1", "marginal")
    x = images()
    torch.manual_seed(5)
    bound = objective(model, x).bound()
    torch.manual_seed(5)
    trace = model(x)
    q, zeta = trace.posterior.groups[0].logits.double(), trace.posterior.zeta.double()
    tilt = model.smoothing.beta * (2 * zeta - 1)
    # log q(zeta) - log p(zeta), the common factor r(zeta | 0) left out; p(z = 1) = 1/2.
    log_q = torch.log(torch.sigmoid(-q) + torch.sigmoid(q) * tilt.exp())
    log_p = torch.log(0.5 + 0.5 * tilt.exp())
    expected = trace.likelihood.log_prob(x).double() - (log_q - log_p).sum(1)
    torch.testing.assert_close(bound.double(), expected, rtol=1e-4, atol=1e-3)


def test_training_is_a_million_steps_of_a_hundred_and_is_judged_by_100_and_4000_samples() -> None:
    for network, column in CELLS:
        training, evaluation = recipe(network, column).training, recipe(network, column).evaluation
        assert training == recipe("nonlinear-1", "joint").training
        assert (training.steps, training.batch, training.optimiser.epsilon) == (1_000_000, 100, 1e-3)
        assert (training.validation_samples, evaluation.samples) == (100, 4000)
        assert evaluation.examples is None


@pytest.mark.parametrize("size", ["tiny", "small"])
def test_smaller_sizes_keep_the_optimiser(size: str) -> None:
    for network, column in CELLS:
        paper, small = recipe(network, column).training, recipe(network, column, size=size).training
        for name in ("batch", "learning_rate", "optimiser", "l2", "kl_warmup", "beta"):
            assert getattr(small, name) == getattr(paper, name)


@pytest.fixture(scope="module")
def optimised() -> tuple[Recipe, dvaepp.FeedForwardVAE, Dataset]:
    bits = (torch.rand(120, PIXELS) < 0.5).to(torch.uint8)
    data = Dataset("bits", (28, 28), bits, bits, bits, False, "by hand")
    return recipe("nonlinear-1", "joint"), fresh("nonlinear-1", "joint"), data


@pytest.mark.parametrize(
    ("step", "rate", "kl_weight"),
    [
        (0, 3e-4, 0.0),
        (19_999, 3e-4, 19_999 / 300_000),
        (20_000, 3e-3, 20_000 / 300_000),
        (150_000, 3e-3, 0.5),
        (299_999, 3e-3, 299_999 / 300_000),
        (300_000, 3e-3, 1.0),
        (599_999, 3e-3, 1.0),
        (600_000, 1e-3, 1.0),
        (749_999, 1e-3, 1.0),
        (750_000, 3e-4, 1.0),
        (949_999, 3e-4, 1.0),
        (950_000, 9e-5, 1.0),
        (999_999, 9e-5, 1.0),
    ],
)
def test_a_step_has_the_rate_and_kl_weight_of_its_time(
    optimised: tuple[Recipe, dvaepp.FeedForwardVAE, Dataset], step: int, rate: float, kl_weight: float, tmp_path: Path
) -> None:
    """The first update of an Adam that starts at this step, under a gradient of 1 at one bias: rate / (1 + epsilon)."""
    chosen, model, bits = optimised
    bias = model.prior.first.bias
    nn.init.zeros_(bias)

    def slope(model: Any, x: Tensor) -> BoundTerms:
        """A KL of one nat, so that the first loss is the KL weight."""
        assert x.shape == (100, PIXELS)
        return BoundTerms(-bias.sum().expand(100), torch.ones(100), torch.zeros(100, 0))

    trainer = Trainer(model, slope, bits, chosen.training, tmp_path)
    trainer.step = step
    loss, _ = trainer.train_step()
    assert float(loss) == pytest.approx(kl_weight)
    # TensorFlow's epsilon, .001, weighs 1 / sqrt(1 - .999^t) in torch's form: 31.6 times as much at t = 1.
    epsilon = {0: 0.0316228}.get(step, 1e-3)
    torch.testing.assert_close(bias.detach(), torch.full((200,), -rate / (1 + epsilon)), rtol=1e-3, atol=0)


def test_l2_of_a_ten_thousandth_pulls_matrices_gains_and_couplings_and_no_bias(tmp_path: Path) -> None:
    """Without any other gradient a first Adam step moves w by rate g / (|g| + .0316228), g = .0001 w."""
    chosen = recipe("nonlinear-1", "rbm")
    bits = (torch.rand(100, PIXELS) < 0.5).to(torch.uint8)
    model, _ = override(chosen, ["model.prior.sampler.num_chains=1"]).build(form())
    model.double()
    before: dict[str, Tensor] = {}
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(0.5 + torch.rand_like(parameter))
            before[name] = parameter.clone()

    def flat(model: Any, x: Tensor) -> BoundTerms:
        nothing = torch.stack([0 * p.sum() for p in model.parameters()]).sum().expand(len(x))
        return BoundTerms(nothing, nothing, x.new_zeros(len(x), 0))

    Trainer(model, flat, Dataset("bits", (28, 28), bits, bits, bits, False, ""), chosen.training, tmp_path).train_step()
    gains = {f"{net}.{k}.weight" for net in ("encoder.levels.0.1", "decoder.0") for k in (1, 4)}
    assert gains < set(before)
    for name, parameter in model.named_parameters():
        moved = before[name] - parameter.detach()
        if parameter.ndim > 1 or name in gains:
            g = 1e-4 * before[name]
            torch.testing.assert_close(moved, 3e-4 * g / (g + 0.0316228), rtol=1e-5, atol=0, msg=name)
        else:
            assert not moved.any(), name
