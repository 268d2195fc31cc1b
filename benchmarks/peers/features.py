"""What each library's public API has, with the class or function that shows it.

A cell is (yes, no or what it is instead, names). Names are looked up in the installed source. People read the rest, in
the versions of results/peers.json: a name that is no longer found is reported, a new feature is not.
"""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

FOLDERS = {
    "dvaepp": "dvaepp",
    "dwave-pytorch-plugin": "dwave/plugins/torch",
    "kaiwu-torch-plugin": "kaiwu/torch_plugin",
    "rbms": "rbms",
    "thrml": "thrml",
    "pythae": "pythae",
    "scikit-learn": "sklearn/neural_network",
}
Cell = tuple[bool | str, tuple[str, ...]]
NO: Cell = (False, ())
FEATURES: dict[str, dict[str, Cell]] = {
    "VAE of bits with a Boltzmann prior": {
        "dvaepp": (True, ("FeedForwardVAE", "BoltzmannPrior")),
        "dwave-pytorch-plugin": (True, ("DiscreteVariationalAutoencoder", "GraphRestrictedBoltzmannMachine")),
        "kaiwu-torch-plugin": (True, ("QVAE",)),
        "pythae": ("discrete codes, without a Boltzmann prior", ("VQVAE",)),
    },
    "overlapping smoothings": {
        "dvaepp": (True, ("OverlappingExponential", "OverlappingLogistic", "OverlappingNormal", "PowerFunction")),
        "dwave-pytorch-plugin": ("straight-through Gumbel softmax", ("DiscreteVariationalAutoencoder",)),
        "kaiwu-torch-plugin": ("the exponential one", ("MixtureGeneric",)),
    },
    "KL in closed form but for log Z": {
        "dvaepp": (True, ("joint_elbo", "Prior.kl")),
        "dwave-pytorch-plugin": (
            "a pseudo-KL, its entropy a mean over spins where its cross-entropy is a sum",
            ("pseudo_kl_divergence_loss",),
        ),
        "kaiwu-torch-plugin": ("for one group of independent bits", ("QVAE.loss",)),
        "pythae": ("of normal latents", ("VAE.loss_function",)),
    },
    "log Z with its uncertainty": {
        "dvaepp": (True, ("estimate_log_partition", "LogPartition")),
        "rbms": ("log Z by annealing, without an error", ("compute_partition_function_ais",)),
        "scikit-learn": ("a pseudo-likelihood", ("BernoulliRBM.score_samples",)),
    },
    "importance-weighted likelihood, latents binary": {
        "dvaepp": (True, ("importance_weighted", "score")),
        "pythae": ("of continuous latents", ("VAE.get_nll",)),
    },
    "persistent chains": {
        "dvaepp": (True, ("PersistentChains", "TemperedChains")),
        "dwave-pytorch-plugin": (True, ("BipartiteGibbsSampler", "BlockSampler")),
        "rbms": (True, ("fit_batch_pcd",)),
        "thrml": ("states are the caller's to keep", ("sample_states",)),
        "scikit-learn": (True, ("BernoulliRBM.fit",)),
    },
    "hardware and its graphs": {
        "dvaepp": (True, ("machine_on_graph", "hardware_graph", "DimodSampler")),
        "dwave-pytorch-plugin": (True, ("GraphRestrictedBoltzmannMachine", "DimodSampler")),
        "kaiwu-torch-plugin": ("its vendor's coherent Ising machine", ("AbstractBoltzmannMachine.sample",)),
        "thrml": ("any graph, blocks given by the caller", ("IsingEBM", "Block")),
    },
    "training that can be resumed": {
        "dvaepp": ("bit for bit", ("RunFolder", "Trainer")),
        "dwave-pytorch-plugin": ("no trainer", ()),
        "kaiwu-torch-plugin": ("no trainer", ()),
        "rbms": (True, ("train", "load_model")),
        "thrml": ("no trainer", ()),
        "pythae": ("checkpoints are written; the trainer reads none", ("BaseTrainer.save_checkpoint",)),
        "scikit-learn": ("by batches, in one process or pickled", ("BernoulliRBM.partial_fit",)),
    },
    "export of samples": {
        "dvaepp": ("pictures, arrays, tables", ("Run.sample", "read_states")),
        "dwave-pytorch-plugin": ("tensors, dimod's sample sets", ("DimodSampler.sample_set",)),
        "kaiwu-torch-plugin": ("tensors", ("AbstractBoltzmannMachine.sample",)),
        "rbms": ("tensors", ("EBM.sample_state",)),
        "thrml": ("arrays", ("sample_states",)),
        "pythae": ("pictures", ("NormalSampler.sample",)),
        "scikit-learn": ("arrays", ("BernoulliRBM.gibbs",)),
    },
}


def defined(folder: Path) -> set[str]:
    """Every class, function and Class.method of a package's source."""
    found: set[str] = set()
    for path in folder.rglob("*.py"):
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.ClassDef | ast.FunctionDef):
                found.add(node.name)
            if isinstance(node, ast.ClassDef):
                found |= {f"{node.name}.{each.name}" for each in node.body if isinstance(each, ast.FunctionDef)}
    return found


def features(name: str, packages: Path) -> dict[str, dict[str, Any]]:
    """The library's column, and which of its names are not in the source that lies there."""
    there = defined(packages / FOLDERS[name])
    column = {}
    for feature, cells in FEATURES.items():
        has, names = cells.get(name, NO)
        lost = [each for each in names if each not in there]
        column[feature] = {"has": has, "shown_by": list(names), **({"not_found": lost} if lost else {})}
    return column
