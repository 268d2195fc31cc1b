"""The command `prior`: a run's Boltzmann machine for samplers elsewhere, and how good their samples are."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

from dvaepp.boltzmann.files import read_states, write_model
from dvaepp.boltzmann.ising import to_ising, to_qubo
from dvaepp.boltzmann.quality import sample_quality
from dvaepp.cli.run_folder import opened
from dvaepp.errors import InputError
from dvaepp.models.base import measuring
from dvaepp.priors.boltzmann import BoltzmannPrior
from dvaepp.randomness import stream_seed
from dvaepp.runs.progress import console
from dvaepp.runs.records import check_not_a_runs

_REFERENCE = 10_000
"""Samples of the prior's own that others are compared with."""


def prior(arguments: Namespace) -> None:
    """The machine as an Ising model or QUBO, or what samples of it from elsewhere are worth."""
    if (arguments.output is None) == (arguments.samples is None):
        raise InputError("prior takes either -o, to write the machine, or --samples, to judge samples of it")
    model = opened(arguments).model(arguments.last, arguments.device).model
    boltzmann = model.prior
    if not isinstance(boltzmann, BoltzmannPrior):
        raise InputError(f"the prior of {arguments.run} is a {type(boltzmann).__name__}, not a Boltzmann machine")
    if arguments.samples is not None:
        with measuring(model, stream_seed("samples", 0)):
            _judge(boltzmann, Path(arguments.samples))
        return
    if not arguments.output.endswith(".json"):
        raise InputError(f"{arguments.output} must end in .json")
    check_not_a_runs(Path(arguments.output))
    form = to_ising if arguments.form == "ising" else to_qubo
    write_model(Path(arguments.output), form(boltzmann.machine))
    console.print(f"wrote {arguments.output}")


def _judge(boltzmann: BoltzmannPrior, path: Path) -> None:
    """Print what the samples in a file are worth."""
    machine = boltzmann.machine
    samples = read_states(path, machine).to(machine.bias)
    found = sample_quality(machine, samples, boltzmann.sample(_REFERENCE))
    own = boltzmann.known_log_partition()
    reference = "exact samples" if boltzmann.chains is None else "copies of its own chains"
    lines = {
        "samples": f"{found.samples:,}",
        "inverse temperature": f"{found.inverse_temperature:.3f} (1: as drawn from the machine; below: too hot)",
        "E[z_i], off by": f"{found.bits:.4f} (chance: {found.bits_noise:.4f}; against {_REFERENCE:,} {reference})",
        "E[z_i z_j], off by": f"{found.pairs:.4f} (chance: {found.pairs_noise:.4f}; joined pairs)",
        "log Z from them": str(found.log_partition),
        "log Z known": str(own),
    }
    for name, text in lines.items():
        console.print(f"{name:22} {text}")
