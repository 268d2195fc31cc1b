"""Table 1's recipes, literal by literal, in what the built modules, objective and optimiser do (Sec. 7.1)."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import dvaepp
from dvaepp.data.dataset import Dataset
from dvaepp.errors import InputError
from dvaepp.estimators import NVIL, REBAR, LocalExpectation, MuProp, ReinMax, RelaxedBernoulli
from dvaepp.likelihoods.base import DataSpec
from dvaepp.objectives.base import Objective
from dvaepp.objectives.bounds import JointBound, MarginalBound
from dvaepp.objectives.elbo import Elbo
from dvaepp.recipes import catalogue
from dvaepp.recipes.recipe import Recipe, override
from dvaepp.recipes.table_1 import Table1
from dvaepp.storage import load_tensors
from dvaepp.training.trainer import Trainer

PIXELS = 784
COLUMNS = (
    *("nvil", "muprop", "rebar", "concrete", "concrete-density"),
    *("joint", "marginal", "reinmax", "local-expectation"),
)
TUCKERS = COLUMNS[:5]
CELLS = [(network, column) for network in ("linear", "nonlinear") for column in COLUMNS]


def recipe(network: str, column: str, size: Any = "paper", data: str = "mnist-static") -> Recipe:
    return catalogue.find(f"table-1/{data}/{network}/{column}", size)


def mean() -> Tensor:
    return torch.linspace(0, 1, PIXELS)


def built(network: str, column: str) -> tuple[dvaepp.FeedForwardVAE, Objective]:
    torch.manual_seed(0)
    model, objective = recipe(network, column).build(DataSpec((28, 28), mean(), torch.ones(PIXELS)))
    assert isinstance(model, dvaepp.FeedForwardVAE)
    return model, objective


def by_hand(module: nn.Module, inputs: Tensor) -> Tensor:
    """linear, or (linear, tanh) twice and linear, in float64."""
    *hidden, last = [layer for layer in module.modules() if isinstance(layer, nn.Linear)]
    h = inputs.double()
    for layer in hidden:
        h = torch.tanh(h @ layer.weight.double().T + layer.bias.double())
    return h @ last.weight.double().T + last.bias.double()


@pytest.mark.parametrize("network", ["linear", "nonlinear"])
def test_encoder_decoder_and_prior(network: str) -> None:
    model, _ = built(network, "joint")
    sizes = [(layer.in_features, layer.out_features) for layer in model.modules() if isinstance(layer, nn.Linear)]
    hidden = [] if network == "linear" else [200, 200]
    assert sizes == [
        *zip([784, *hidden], [*hidden, 200], strict=True),
        *zip([200, *hidden], [*hidden, 784], strict=True),
    ]
    assert not any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in model.modules())
    x, z = torch.randint(0, 2, (5, PIXELS)).float(), torch.randint(0, 2, (5, 200)).float()
    logits = model.code(x).double()
    torch.testing.assert_close(logits, by_hand(model.encoder, x.double() - mean()), rtol=1e-5, atol=1e-5)
    shift = torch.logit(mean().double().clamp(0.001, 0.999))
    means = torch.sigmoid(by_hand(model.decoder, 2 * z.double() - 1) + shift)
    torch.testing.assert_close(model.decode(z).mean.double(), means, rtol=1e-5, atol=1e-5)
    prior = model.prior
    assert isinstance(prior, dvaepp.BernoulliPrior)
    assert torch.equal(prior.bias, torch.zeros(200))
    assert sum(p.numel() for p in model.parameters()) == (314_784 if network == "linear" else 475_584)


def test_weights_are_normal_cut_at_two_sd_of_variance_two_over_fan_in() -> None:
    model, _ = built("nonlinear", "joint")
    for layer in (m for m in model.modules() if isinstance(m, nn.Linear)):
        scale = (2.6 / layer.in_features) ** 0.5
        assert layer.weight.abs().max() <= 2 * scale
        assert layer.weight.var().item() == pytest.approx(2 / layer.in_features, rel=0.05)
        assert not layer.bias.any()


@pytest.mark.parametrize(("network", "column"), CELLS)
def test_objective_and_optimiser(network: str, column: str) -> None:
    of, (model, objective) = recipe(network, column), built(network, column)
    training = of.training
    assert (training.steps, training.batch, training.kl_warmup, training.l2) == (2_000_000, 24, 0, 0)
    assert {training.learning_rate_at(f) for f in (0, 0.5, 1)} == {5e-4 if network == "linear" else 1e-4}
    made = training.optimiser(model, training.l2)["optimizer"]
    training.optimiser.set_rate({"optimizer": made}, 0.1, 10**9)  # so late that the bias correction is over
    (group,) = (g for g in made.param_groups if len(g["params"]) > 1 and g["params"][0].ndim == 2)
    tuckers = column in TUCKERS
    assert group["betas"] == (0.9, 0.99999 if tuckers else 0.999)
    assert group["eps"] == pytest.approx(1e-8 if tuckers else 1e-3)
    kinds = {"nvil": NVIL, "muprop": MuProp, "rebar": REBAR, "concrete": RelaxedBernoulli}
    kinds |= {"reinmax": ReinMax, "local-expectation": LocalExpectation}
    if column in ("joint", "marginal"):
        assert isinstance(objective, JointBound if column == "joint" else MarginalBound)
        assert training.beta_at(0) == of.model.smoothing.sharpness
        assert 5 <= training.beta_at(0) <= 8 < 12 <= training.beta_at(1) <= 18  # type: ignore[operator]
        assert isinstance(of.model.smoothing, dvaepp.OverlappingExponential)
        return
    if column == "concrete-density":
        assert isinstance(objective, MarginalBound)
        assert of.model.smoothing == dvaepp.Concrete(0.1)
        return
    assert isinstance(objective, Elbo)
    assert type(objective.built) is kinds[column]
    assert objective.analytic_kl is not tuckers
    assert training.beta is None
    if column == "concrete":
        assert objective.built == RelaxedBernoulli(0.1, muprop=True)
    if column == "nvil":
        assert not objective.built.normalise
        assert torch.equal(objective.built.baseline.centre.shift, -mean())


def test_the_evaluation_and_the_papers_numbers() -> None:
    for network, column in CELLS:
        of = recipe(network, column).evaluation
        assert (of.samples, of.examples) == (100, None)
    table = Table1()
    assert table.published("mnist-static/linear/concrete") == "107.00 ± 0.10"
    assert table.published("omniglot-static/nonlinear/marginal") == "113.76 ± 0.18"
    assert table.published("omniglot-lake-static/linear/joint") == "–"
    assert table.published("mnist-static/linear/reinmax") == "–"


@pytest.mark.parametrize("column", COLUMNS)
def test_a_tiny_run_of_every_column_moves_and_goes_on(column: str, tmp_path: Path) -> None:
    of = override(recipe("linear", column, "tiny"), ["training.steps=6", "training.validate_every=3"])
    bits = (torch.rand(60, PIXELS, generator=torch.Generator().manual_seed(1)) < 0.3).to(torch.uint8)
    data = Dataset("noise", (28, 28), bits, bits[:10], bits[10:20], False, "by hand")

    def trainer(folder: str) -> Trainer:
        torch.manual_seed(3)
        model, objective = of.build(DataSpec(data.shape, data.mean, data.sd))
        return Trainer(model, objective, data, of.training, tmp_path / folder)

    whole = trainer("whole")
    start = [p.detach().clone() for p in (*whole.model.parameters(), *(whole.learned or nn.Module()).parameters())]
    whole.fit()
    after = [*whole.model.parameters(), *(whole.learned or nn.Module()).parameters()]
    assert all(not torch.equal(a, b) for a, b in zip(start, after, strict=True))

    def stop(metrics: Any) -> None:
        if metrics["step"] == 6:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        trainer("parts").fit(stop)
    again = trainer("parts")
    again.restore()
    assert again.step == 3
    again.fit()
    (a, about_a), (b, about_b) = (
        load_tensors(tmp_path / f"{name}/checkpoint.safetensors") for name in ("whole", "parts")
    )
    assert about_a == about_b
    assert a.keys() == b.keys()
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert any(name.startswith("estimator.") for name in a) == (column in ("nvil", "muprop", "rebar"))


def test_what_is_learned_goes_at_its_own_rate(tmp_path: Path) -> None:
    of = override(recipe("linear", "nvil", "tiny"), ["training.estimator_rate=7", "training.l2=0.1"])
    bits = torch.zeros(30, PIXELS, dtype=torch.uint8)
    data = Dataset("blank", (28, 28), bits, bits, bits, False, "by hand")
    model, objective = of.build(DataSpec(data.shape, data.mean, data.sd))
    trainer = Trainer(model, objective, data, of.training, tmp_path)
    trainer.train_step()
    rates = {kind: made.param_groups[0]["lr"] for kind, made in trainer.optimisation.optimizers.items()}
    assert rates == {"optimizer": 5e-4, "estimator.optimizer": pytest.approx(7 * 5e-4)}
    decays = {k: {g["weight_decay"] for g in made.param_groups} for k, made in trainer.optimisation.optimizers.items()}
    assert max(decays["optimizer"]) > 0
    assert decays["estimator.optimizer"] == {0.0}


def test_estimators_are_chosen_by_short_names() -> None:
    base = recipe("linear", "joint", "tiny")
    chosen = override(base, ["objective=elbo", "estimator.name=leave-one-out", "estimator.samples=4"])
    assert chosen.objective == Elbo(estimator=dvaepp.estimators.LeaveOneOut(4))
    assert override(chosen, ["estimator=vimco", "objective.analytic_kl=false"]).objective.name == "elbo"
    for settings, message in (
        (["estimator=vimco"], "--set estimator is of objective=elbo, which must come before it"),
        (["estimator.name=vimco", "objective=elbo"], "--set estimator.name is of objective=elbo, which must come"),
        (["objective=elbo", "estimator=arm", "objective=elbo"], "--set objective would undo what is said of its"),
        (["objective=elbo", "estimator=vimco"], "VIMCO is a bound of importance weights"),
        (["objective=elbo", "estimator=rebr"], "no estimator is named 'rebr'; did you mean 'rebar'"),
        (["objective=elbo", "estimator=arms", "estimator.samples=1"], "samples of ARMS must be a whole number"),
        (["objective=elbo", "objective.analytic_kl=false", "training.kl_warmup=0.3"], "training.kl_warmup must be 0"),
        (["objective=elbo", "model.groups=[20,20]", "model.prior=directed"], "ReinMax has no gradient for 2 groups"),
    ):
        with pytest.raises(InputError, match=message):
            override(base, settings)
