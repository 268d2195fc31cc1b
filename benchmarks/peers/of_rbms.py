"""rbms: PCD by its own functions, with its default of centred gradients."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import serve


def first(bits: np.ndarray) -> None:
    """The README's command on digits, without a GPU, as long as one epoch; then samples of what it saved."""
    import h5py
    import torch
    from rbms.io import load_model
    from rbms.utils import get_saved_updates

    with h5py.File("digits.h5", "w") as file:
        file["samples"] = bits
    options = "--num_hiddens 64 --gibbs_steps 1 --num_chains 100 --batch_size 100 --num_updates 40 --device cpu"
    command = [
        Path(sys.executable).with_name("rbms"),
        "train",
        "-d",
        "digits.h5",
        *options.split(),
        "--filename",
        "a.h5",
    ]
    subprocess.run(command, check=True)
    last = get_saved_updates("a.h5")[-1]
    machine, *_ = load_model("a.h5", last, device=torch.device("cpu"), dtype=torch.float32)
    machine.sample_state(n_steps=10, chains=machine.init_chains(16))


def gibbs() -> serve.Work:
    import torch
    from rbms.bernoulli_bernoulli.classes import BBRBM

    torch.set_num_threads(1)
    zeros, cpu = torch.zeros(serve.SIDE), torch.device("cpu")
    machine = BBRBM(0.1 * torch.randn(serve.SIDE, serve.SIDE), zeros, zeros.clone(), device=cpu, dtype=torch.float32)
    chains = machine.init_chains(serve.GIBBS_CHAINS)
    return lambda: machine.sample_state(n_steps=serve.SWEEPS, chains=chains)


class Learner:
    def __init__(self, bits: np.ndarray, rate: float) -> None:
        import torch
        from rbms.bernoulli_bernoulli.classes import BBRBM
        from rbms.dataset.dataset_class import RBMDataset

        torch.set_num_threads(1)
        torch.manual_seed(0)
        self.random, self.bits, cpu = np.random.default_rng(0), torch.from_numpy(bits).float(), torch.device("cpu")
        ones = np.ones(len(bits), np.float32)
        data = RBMDataset(bits.astype(np.float32), ones, ones, ones, "digits", True, "cpu", torch.float32)
        self.machine = BBRBM.init_parameters(serve.HIDDEN, data, cpu, torch.float32)
        self.machine.init_grad()
        self.chains = self.machine.init_chains(serve.CHAINS)
        self.optimizer = torch.optim.SGD(self.machine.parameters(), lr=rate, maximize=True)
        self.ones = torch.ones(serve.BATCH)

    def epoch(self) -> None:
        import torch
        from rbms.training.pcd import fit_batch_pcd

        with torch.no_grad():
            for batch in serve.batches(self.bits, self.random):
                self.optimizer.zero_grad(set_to_none=False)
                self.chains, _ = fit_batch_pcd((batch, self.ones), self.chains, self.machine, gibbs_steps=1, beta=1.0)
                self.optimizer.step()

    def parameters(self) -> serve.Parameters:
        return tuple(each.numpy() for each in (self.machine.vbias, self.machine.hbias, self.machine.weight_matrix))


if __name__ == "__main__":
    serve.main(first, {"gibbs": gibbs}, Learner)
