"""Compression: what goes in comes out, at the length of the bound."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from deep import deep_model
from registry import all_states, boltzmann_prior, case_model, every_prior, exact_log_likelihood, machine

from dvaepp import BoltzmannMachine, BoltzmannPrior, InputError, PersistentChains, hard
from dvaepp.evaluation.bits_back import BitsBack, _Machine
from dvaepp.models.encoders import NormalEncoder
from dvaepp.models.feedforward import FeedForwardVAE
from dvaepp.networks.dense import dense
from dvaepp.objectives.importance import log_weight
from dvaepp.priors.normal import NormalPrior

CODED = [name for name in every_prior if "normal" not in name]


def drawn(model: Any, n: int) -> torch.Tensor:
    torch.manual_seed(3)
    return model.generate(n).to(torch.uint8)


@pytest.mark.parametrize("name", CODED)
def test_what_goes_in_comes_out_at_the_length_of_the_bound(name: str) -> None:
    model = case_model(name)
    code, x = BitsBack(model), drawn(model, 1600)
    words = code.encode(x)
    assert torch.equal(code.decode(words, len(x)), x)
    bits = 32 * (len(words) - len(code.start)) / len(x)
    with torch.no_grad():
        bound = -log_weight(model, x.double(), hard, 10).view(len(x), 10) / math.log(2)
    error = float(bound.mean(1).std()) / len(x) ** 0.5
    assert bits == pytest.approx(float(bound.mean()), abs=5 * error + 64 / len(x) * 32)
    exact = -exact_log_likelihood(model, x[:500].double()).mean().item() / math.log(2)
    assert bits > exact - 5 * error, "no code is shorter than log p(x)"


@pytest.mark.parametrize("name", CODED)
def test_it_is_exact_in_single_precision(name: str) -> None:
    model = case_model(name).float()
    code, x = BitsBack(model), drawn(model, 40)
    assert torch.equal(code.decode(code.encode(x), len(x)), x)


@pytest.mark.parametrize("n", [1, 15, 16, 17, 33])
def test_any_number_of_examples(n: int) -> None:
    model = case_model("rbm-2-groups")
    code, x = BitsBack(model), drawn(model, n)
    assert torch.equal(code.decode(code.encode(x), n), x)


def test_saturated_probabilities_are_coded_too() -> None:
    model = case_model("bernoulli")
    with torch.no_grad():
        for parameter in model.parameters():
            parameter *= 40
    code, x = BitsBack(model), torch.randint(0, 2, (50, 4), dtype=torch.uint8)
    assert torch.equal(code.decode(code.encode(x), 50), x)


@pytest.mark.parametrize("blocks", [(3, 4), (4, 3), (2, 3, 2), (1, 5)])
def test_the_factors_of_a_machine_are_its_law(blocks: tuple[int, ...]) -> None:
    found = machine(*blocks)
    factors, states = _Machine(found), all_states(sum(blocks))
    with torch.no_grad():
        log_p = torch.zeros(len(states), dtype=torch.float64)
        for place, group in enumerate(factors.groups):
            signs = 2 * states[:, group] - 1
            log_p += torch.nn.functional.logsigmoid(signs * factors.logits(states, place)).sum(1)
        expected = torch.log_softmax(-found.energy(states), 0)
    torch.testing.assert_close(log_p, expected)


def test_codes_that_would_not_be_exact_are_refused() -> None:
    large = BoltzmannPrior(BoltzmannMachine(17, 17), PersistentChains(10))
    encoder = case_model("bernoulli").encoder
    with pytest.raises(InputError, match="at most 16 bits outside its largest block, .* this one has 17"):
        BitsBack(FeedForwardVAE(encoder, large, dense(34, 4), hard))
    with pytest.raises(InputError, match="without local variables"):
        BitsBack(deep_model(boltzmann_prior(2, 1), (3,)))
    with pytest.raises(InputError, match="a prior of bits, not a NormalPrior"):
        BitsBack(FeedForwardVAE(NormalEncoder(dense(4, 6)), NormalPrior(3), dense(3, 4), hard))


def test_words_of_another_model_or_number_are_refused() -> None:
    model = case_model("directed-2") if "directed-2" in every_prior else case_model(CODED[0])
    code, x = BitsBack(model), drawn(model, 40)
    words = code.encode(x)
    with pytest.raises(InputError, match="do not end where it began"):
        code.decode(words, 39)
    with pytest.raises(InputError, match="do not end where it began"):
        code.decode(np.roll(words, 1), 40)
    with pytest.raises(InputError, match=r"x must be bits \(n, 4\)"):
        code.encode(x[:, :3])
    with pytest.raises(InputError, match=r"x must be bits \(n, 4\)"):
        code.encode(2 * x)
