"""pythae: autoencoders with continuous latents, so that only its first run is ours to time."""

from __future__ import annotations

import numpy as np
import serve


def first(bits: np.ndarray) -> None:
    """The README's pipeline with its VAE, one epoch on digits, then its sampler."""
    from pythae.models import VAE, VAEConfig
    from pythae.pipelines import TrainingPipeline
    from pythae.samplers import NormalSampler
    from pythae.trainers import BaseTrainerConfig

    training = BaseTrainerConfig(
        output_dir="my_model", num_epochs=1, learning_rate=1e-3, per_device_train_batch_size=100
    )
    model = VAE(model_config=VAEConfig(input_dim=(1, 28, 28), latent_dim=10))
    data = bits.reshape(-1, 1, 28, 28).astype(np.float32)
    TrainingPipeline(training_config=training, model=model)(train_data=data, eval_data=data[:500])
    NormalSampler(model=model).sample(num_samples=16, batch_size=16, output_dir=None, return_gen=True)


if __name__ == "__main__":
    serve.main(first)
