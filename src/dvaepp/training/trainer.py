"""Training that can be stopped at any moment and goes on bit for bit."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from dvaepp import distributed
from dvaepp.data import Dataset
from dvaepp.errors import InputError, TrainingDivergedError
from dvaepp.evaluation.likelihood import score, shared_log_partition
from dvaepp.models.base import Model, evaluation_mode, measuring, unchecked
from dvaepp.models.feedforward import FeedForwardVAE
from dvaepp.networks.compiled import compile_cells
from dvaepp.objectives.base import BoundTerms, Objective, Terms
from dvaepp.randomness import Purpose, stream_seed
from dvaepp.storage import AnyPath, load_tensors, save_tensors
from dvaepp.training import checkpoints
from dvaepp.training.batches import BatchOrder, sent
from dvaepp.training.checkpoints import SameRecipe
from dvaepp.training.journal import Journal, Metrics
from dvaepp.training.optimisation import Optimisation, learned_by
from dvaepp.training.settings import TrainingSettings

CHECKPOINT = "checkpoint.safetensors"
"""What the latest state is called in a run folder."""


class Trainer:
    """A model, its data and its optimisers in a run folder.

    `objective(model, x)` gives `BoundTerms`: minus the mean of their bound, with the KL weight and the balancing of
    `settings`, is the loss, and their means are what is logged.

    The folder holds `metrics.jsonl`, `checkpoint.safetensors` (weights, averages, optimisers, chains, random state,
    step: all that the next step depends on) and `best.safetensors` (the weights, or averages, with the best validation
    likelihood at the high end of log Z's interval). `about` is plain JSON kept in both, with the data's digest, shape,
    mean and sd; of what it says of a recipe `same_recipe` tells whether a checkpoint is of the same. With
    `settings.beta` the model's smoothing is at each moment that of the latest step, before any that of the first.
    Of several processes (`dvaepp.distributed`) each takes its share of every batch, with noise and chains of its own;
    the first alone writes. InputError where the batch does not divide among them.

    >>> import tempfile
    >>> import dvaepp
    >>> bits = torch.randint(0, 2, (20, 12), dtype=torch.uint8)
    >>> data = Dataset("coins", (12,), bits, bits, bits, dynamic=False, protocol="fair coins")
    >>> encoder, decoder = dvaepp.HierarchicalEncoder(dvaepp.dense(12, 4)), dvaepp.dense(4, 12)
    >>> model = dvaepp.FeedForwardVAE(encoder, dvaepp.BernoulliPrior(4), decoder, dvaepp.OverlappingExponential(8.0))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     trainer = Trainer(model, dvaepp.joint_terms, data, TrainingSettings(steps=2, batch=10), Path(folder))
    ...     trainer.fit()
    >>> trainer.step
    2
    """

    def __init__(
        self,
        model: Model,
        objective: Terms,
        data: Dataset,
        settings: TrainingSettings,
        folder: AnyPath,
        seed: int = 0,
        about: dict[str, Any] | None = None,
        same_recipe: SameRecipe = operator.eq,
    ) -> None:
        self.model = model
        self.objective, self.data, self.settings = objective, data, settings
        distributed.share(settings.batch, "training.batch")
        self.folder, self.seed, self._same_recipe = Path(folder), seed, same_recipe
        self.about = {**(about or {}), **checkpoints.about_data(data)}
        self.device, self._data_tensors = next(model.parameters()).device, checkpoints.data_tensors(data)
        checkpoints.anneal(model, settings, 0.0)
        distributed.synchronise_batch_norm(model)
        if settings.compile and not self.is_captured:
            compile_cells(model)
        self._averaged_losses = distributed.averaging(model, self._losses)
        if distributed.world() > 1:
            torch.manual_seed(distributed.own_seed(stream_seed("training", seed)))
            model.prior.restart()
        self.learned = learned_by(objective, settings, next(model.parameters()))
        self.optimisation = Optimisation(model, self.learned, settings)
        self.step = 0
        self.best: Metrics = {}
        self.journal = Journal(self.folder / "metrics.jsonl")
        self._order, self._data = BatchOrder(len(data.train), settings.batch, seed), data.near(self.device)

    @property
    def dtype(self) -> torch.dtype:
        """The model's precision."""
        return next(self.model.parameters()).dtype

    @property
    def checkpoint(self) -> Path:
        """Where the latest state is."""
        return self.folder / CHECKPOINT

    @property
    def is_captured(self) -> bool:
        """Whether `compile` makes a CUDA graph of its steps as they are: on a GPU, of models that are not stacked."""
        alone = self.device.type == "cuda" and distributed.world() == 1 and not isinstance(self.model, FeedForwardVAE)
        return (
            self.settings.compile and alone and isinstance(self.objective, Objective) and self.objective.learned is None
        )

    def fit(self, report: Callable[[Metrics], None] = lambda metrics: None) -> None:
        """Train up to the last step from wherever the run stands; `report` is given every line of metrics.

        A model in evaluation mode is put into training mode. In one that trains already, modules that are in evaluation
        mode, such as those of a frozen encoder, stay so.
        """
        settings = self.settings
        self.begin()
        losses: list[Tensor] = []
        with unchecked():
            while self.step < settings.steps:
                loss, x = self.train_step()
                losses.append(loss)
                if self.is_looked_at:
                    self.observe(torch.stack(losses), x, report)
                    losses.clear()
                if self.validates:
                    self.save()

    def begin(self) -> None:
        """Write the first checkpoint of a new run, and put a model in evaluation mode into training mode."""
        self.journal.start()
        if self.step == 0:
            self.save()
        if not self.model.training:
            self.model.train()

    @property
    def validates(self) -> bool:
        """Whether a validation and a checkpoint follow the step that was taken last."""
        return self.step == self.settings.steps or self.step % self.settings.validate_every == 0

    @property
    def is_looked_at(self) -> bool:
        """Whether a line of metrics follows the step that was taken last."""
        return self.validates or self.step % self.settings.log_every == 0

    @property
    def until_next(self) -> int:
        """How many steps come before the next line of metrics."""
        every = self.settings.log_every, self.settings.validate_every
        return min(self.settings.steps - self.step, *(n - self.step % n for n in every))

    def observe(
        self,
        losses: Float[Tensor, " steps"],
        x: Float[Tensor, "batch pixels"],
        report: Callable[[Metrics], None],
        seconds: float | None = None,
    ) -> None:
        """Log how training goes, from the losses since it was logged last, and validate where it is time for it.

        `seconds`: what these steps took, where it is not the time since then. Raises TrainingDivergedError where a loss
        or a parameter is not finite.
        """
        if seconds is not None:
            self.journal.start(seconds)
        self._stop_unless_finite(distributed.mean(losses))
        report(self.journal.add(self._training_metrics(x)))
        if self.validates:
            with self.optimisation.averaged():
                report(self.journal.add(self._validate()))

    def train_step(self) -> tuple[Float[Tensor, ""], Float[Tensor, "batch pixels"]]:
        """One step of the optimiser; the loss and the batch it was taken on, of several processes this one's share."""
        settings, model = self.settings, self.model
        fraction = settings.fraction_before(self.step + 1)
        self.optimisation.set_rates(self.step + 1)
        checkpoints.anneal(model, settings, fraction)
        model.prior.refresh()
        x = self.batches(1)[0]
        loss, learning = self._averaged_losses(x, settings.kl_weight_at(fraction))
        model.zero_grad()
        self.optimisation.find_gradients(loss, learning)
        self.optimisation.step(self.step + 1)
        self.step += 1
        return loss.detach(), x

    def batches(self, steps: int) -> Float[Tensor, "steps batch pixels"]:
        """The examples of the next steps where the model is, of several processes this one's share."""
        order = distributed.own(self._order.of_steps(self.step, steps).mT).mT
        return sent(self._data.batch(sent(order, self._data.train.device)).to(self.dtype), self.device)

    def _losses(
        self, x: Float[Tensor, "batch pixels"], kl_weight: float
    ) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
        """What trains the model, and what trains what its objective learns."""
        terms, learning = self.terms(x)
        return -terms.bound(kl_weight, self._weights(terms, kl_weight)).mean(), learning

    def terms(self, x: Float[Tensor, "batch pixels"]) -> tuple[BoundTerms, Float[Tensor, ""]]:
        """The objective's for this batch, and the loss of what it learns; InputError where they are no bound's."""
        if isinstance(self.objective, Objective):
            return self.objective.with_loss(self.model, x)
        terms = self.objective(self.model, x)
        if not isinstance(terms, BoundTerms):
            given = type(terms).__name__
            raise InputError(f"the objective of a Trainer must give BoundTerms, as joint_terms does, not a {given}")
        return terms, x.new_zeros(())

    def _weights(self, terms: BoundTerms, kl_weight: float) -> Float[Tensor, " groups"] | None:
        """Those of the local groups, from their mean KL over all processes; None where they are not balanced."""
        return terms.balancing(kl_weight, distributed.mean) if self.settings.balance_kl else None

    def _training_metrics(self, x: Float[Tensor, "batch pixels"]) -> Metrics:
        """The loss on the latest batch, as it trains, with log Z as it is now; its parts, unweighted."""
        fraction = self.settings.fraction_before(self.step)
        kl_weight = self.settings.kl_weight_at(fraction)
        self._estimate_log_partition("log Z of the loss", temperatures=100, chains=100, repeats=1)
        own_seed = distributed.own_seed(stream_seed("loss", self.seed, self.step))
        with measuring(self.model, own_seed), evaluation_mode(self.learned or nn.Module()):
            terms, _ = self.terms(x)
            weights, means = self._weights(terms, kl_weight), terms.mean(distributed.mean)
            diagnostics = self.model.prior.chain_diagnostics()
        distortion = -float(means.log_likelihood)
        return {
            "step": self.step,
            "loss": -float(distributed.mean(terms.bound(kl_weight, weights).mean())),
            "distortion": distortion,
            "kl": float(means.kl()),
            **{f"kl_local_{j}": float(term) for j, term in enumerate(means.local_kl_terms, 1)},
            "kl_weight": kl_weight,
            "learning_rate": self.settings.learning_rate_at(fraction),
            **{f"chains_{k}": v for k, v in (asdict(diagnostics) if diagnostics else {}).items() if math.isfinite(v)},
        }

    def _stop_unless_finite(self, losses: Float[Tensor, " steps"]) -> None:
        bad = (~torch.isfinite(losses)).nonzero()
        if len(bad):
            self._stop(self.step - len(losses) + 1 + int(bad[0]))

    def _validate(self) -> Metrics:
        """The importance-weighted bound in the binary limit on a fixed random subset of the validation data."""
        settings, valid = self.settings, self.data.valid
        if not all(bool(torch.isfinite(p).all()) for p in self.model.parameters()):
            self._stop(self.step)
        generator = torch.Generator().manual_seed(stream_seed("validation examples", self.seed))
        subset = torch.randperm(len(valid), generator=generator)[: settings.validation_examples]
        self._estimate_log_partition(
            "log Z of the validation",
            temperatures=settings.validation_temperatures,
            chains=settings.validation_chains,
        )
        x = valid[subset].to(self.device, self.dtype)
        seed = stream_seed("validation", self.seed, self.step)
        numbers = score(self.model, x, settings.validation_samples, seed=seed).numbers()
        metrics = {"step": self.step, **{f"valid_{name}": value for name, value in numbers.items()}}
        nll = "valid_nll_at_high_log_z"  # where log Z is poor it is too low, and the NLL looks too good
        if math.isfinite(metrics[nll]) and metrics[nll] < self.best.get(nll, math.inf):
            self.best = metrics
            about = {**self.about, "step": self.step, "best": metrics}
            distributed.on_first(lambda: save_tensors(self.folder / "best.safetensors", self._model_tensors(), about))
        return metrics

    def _estimate_log_partition(self, purpose: Purpose, *, temperatures: int, chains: int, repeats: int = 3) -> None:
        """Find log Z of the prior as it is now: what the loss's value rests on until the next estimate."""
        with measuring(self.model, stream_seed(purpose, self.seed, self.step)):
            shared_log_partition(self.model.prior, temperatures=temperatures, chains=chains, repeats=repeats)

    def _stop(self, step: int) -> None:
        others = "" if self.model.smoothing.sharpness is None else " or beta"
        raise TrainingDivergedError(
            f"training became NaN or infinite at step {step}; the last good checkpoint is {self.checkpoint} "
            f"(a smaller learning rate{others} may help)"
        )

    def _model_tensors(self) -> dict[str, Tensor]:
        """All that the model is made again from."""
        return {f"model.{name}": tensor for name, tensor in self.model.state_dict().items()} | self._data_tensors

    def _own_tensors(self) -> dict[str, Tensor]:
        """What every process has for itself: its random state and its chains."""
        chains = self.model.prior.named_buffers(recurse=False)
        tensors = {f"model.prior.{name}": tensor.cpu() for name, tensor in chains}
        return tensors | checkpoints.random_tensors(self.device)

    def save(self, path: Path | None = None) -> None:
        """Write the checkpoint, there or in its place; the one before it survives if that fails."""
        tensors = self._model_tensors() | dict(self.optimisation.tensors())
        tensors |= distributed.everyones_tensors(self._own_tensors())
        state = {"step": self.step, "best": self.best, "metrics_lines": self.journal.lines}
        distributed.on_first(lambda: save_tensors(path or self.checkpoint, tensors, {**self.about, **state}))

    def restore(self) -> None:
        """Go back to the checkpoint: metrics written after it are cut off, and training goes on as if never stopped."""
        tensors, about = load_tensors(self.checkpoint)
        if "random.cpu" not in tensors:
            raise InputError(f"{self.checkpoint} holds a model but not the state of a training")
        checkpoints.check_origin(self.checkpoint, about, self.about, self._same_recipe)
        tensors = distributed.own_tensors(tensors, self.checkpoint)
        checkpoints.load_model(self.model, self.checkpoint, tensors, about, self.settings)
        self.optimisation.load(self.checkpoint, tensors)
        checkpoints.restore_random(tensors, self.device)
        self.step, self.best = about["step"], about["best"]
        self.journal.cut(about["metrics_lines"])
