"""The contenders of the benchmark that are other libraries: Pythae and NumPyro, and XLA's products.

Trainers and evaluators are called as those of contenders.py. The libraries are imported when a
contender is made: one that is not installed is left out.
"""

import tempfile
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import Any

import torch
from contenders import HIDDEN, LATENT, PIXELS, Epoch, show
from torch import Tensor, nn


def pythae(images: Tensor, batch: int, draws: int, architecture: str = "mlp") -> Epoch:
    """Pythae's trainer, on its own data loader."""
    from pythae.data.datasets import BaseDataset
    from pythae.trainers import BaseTrainer, BaseTrainerConfig

    if draws != 1 or architecture != "mlp":
        raise NotImplementedError
    trainer = BaseTrainer(
        pythae_vae(),
        BaseDataset(show(images), torch.zeros(len(images))),
        training_config=BaseTrainerConfig(
            output_dir=tempfile.mkdtemp(),
            num_epochs=1,
            learning_rate=1e-3,
            per_device_train_batch_size=batch,
            no_cuda=True,
        ),
    )
    trainer.prepare_training()
    return partial(trainer.train_step, 1)


def pythae_vae() -> Any:
    """Return Pythae's VAE of the architecture above."""
    from pythae.models import VAE as PythaeVAE
    from pythae.models import VAEConfig
    from pythae.models.base.base_utils import ModelOutput
    from pythae.models.nn import BaseDecoder, BaseEncoder

    class Encoder(BaseEncoder):
        def __init__(self) -> None:
            super().__init__()
            self.body = _mlp(PIXELS, 2 * LATENT)

        def forward(self, x: Tensor) -> Any:
            loc, log_variance = self.body(x).chunk(2, -1)
            return ModelOutput(embedding=loc, log_covariance=log_variance)

    class Decoder(BaseDecoder):
        def __init__(self) -> None:
            super().__init__()
            self.body = _mlp(LATENT, PIXELS)

        def forward(self, z: Tensor) -> Any:
            return ModelOutput(reconstruction=self.body(z).sigmoid())

    config = VAEConfig(input_dim=(PIXELS,), latent_dim=LATENT, reconstruction_loss="bce")
    return PythaeVAE(config, Encoder(), Decoder())


def _numpyro_programs() -> tuple[Callable[..., Any], Callable[..., Any]]:
    import jax
    import jax.numpy as jnp
    from numpyro import distributions as dist
    from numpyro import param, plate, sample

    def mlp(name: str, sizes: list[int], x: Any) -> Any:
        for i, (fan_in, fan_out) in enumerate(pairwise(sizes)):
            key = jax.random.PRNGKey(i)
            bound = fan_in**-0.5
            weight = jax.random.uniform(key, (fan_in, fan_out), minval=-bound, maxval=bound)
            x = x @ param(f"{name}.w{i}", weight) + param(f"{name}.b{i}", jnp.zeros(fan_out))
            x = jnp.tanh(x) if i < len(sizes) - 2 else x
        return x

    def model(x: Any) -> None:
        with plate("data", len(x)):
            z = sample("z", dist.Normal(jnp.zeros(LATENT), 1.0).to_event(1))
            logits = mlp("decoder", [LATENT, HIDDEN, HIDDEN, PIXELS], z)
            sample("x", dist.Bernoulli(logits=logits).to_event(1), obs=x)

    def guide(x: Any) -> None:
        with plate("data", len(x)):
            loc, raw = jnp.split(
                mlp("encoder", [PIXELS, HIDDEN, HIDDEN, 2 * LATENT], x), 2, axis=-1
            )
            sample("z", dist.Normal(loc, jax.nn.softplus(raw) + 1e-5).to_event(1))

    return model, guide


def numpyro(images: Tensor, batch: int, draws: int, architecture: str = "mlp") -> Epoch:
    """NumPyro with an epoch in one jitted loop; data in memory, pixels drawn in the loop."""
    import jax
    import jax.numpy as jnp
    from numpyro import infer, optim

    if architecture != "mlp":
        raise NotImplementedError
    model, guide = _numpyro_programs()
    loss = infer.Trace_ELBO() if draws == 1 else infer.RenyiELBO(alpha=0.0, num_particles=draws)
    inference = infer.SVI(model, guide, optim.Adam(1e-3), loss)
    stored = jnp.asarray(images.numpy())
    batches = len(images) // batch
    state = inference.init(jax.random.PRNGKey(0), (stored[:batch] > 127).astype(jnp.float32))

    @jax.jit
    def run(state: Any, key: Any) -> Any:
        order = jax.random.permutation(key, len(stored))

        def body(i: Any, carry: Any) -> Any:
            state, total = carry
            levels = stored[jax.lax.dynamic_slice_in_dim(order, i * batch, batch)]
            noise = jax.random.uniform(jax.random.fold_in(key, i), levels.shape)
            state, value = inference.update(state, (noise * 255 < levels).astype(jnp.float32))
            return state, total + value

        return jax.lax.fori_loop(0, batches, body, (state, 0.0))

    keys = iter(range(10**9))

    def epoch() -> float:
        nonlocal state
        state, total = run(state, jax.random.PRNGKey(next(keys)))
        return float(total)

    return epoch


def pythae_evaluates(images: Tensor, draws: int) -> Epoch:
    """Pythae's `get_nll`, on binary pixels."""
    vae, x = pythae_vae(), show(images)

    def run() -> None:
        with torch.no_grad():
            vae.get_nll(x, draws)

    return run


def numpyro_evaluates(images: Tensor, draws: int) -> Epoch:
    """NumPyro's RenyiELBO, alpha = 0, with vectorised particles, all images in one jitted loop."""
    import jax
    import jax.numpy as jnp
    from numpyro import infer, optim

    model, guide = _numpyro_programs()
    loss = infer.RenyiELBO(alpha=0.0, num_particles=draws)
    inference = infer.SVI(model, guide, optim.Adam(1e-3), loss)
    x = jnp.asarray(show(images).numpy())
    state = inference.init(jax.random.PRNGKey(0), x[:1])
    parameters = inference.get_params(state)

    @jax.jit
    def run(key: Any) -> Any:
        def one(args: Any) -> Any:
            key, image = args
            return loss.loss(key, parameters, model, guide, image[None])

        return jax.lax.map(one, (jax.random.split(key, len(x)), x)).sum()

    return lambda: float(run(jax.random.PRNGKey(0)))


def products_xla(factors: list[tuple[Tensor, Tensor]], times: int) -> Epoch:
    """The products of a step, jitted by XLA, which NumPyro uses."""
    import jax
    import jax.numpy as jnp

    stored = [(jnp.asarray(left.numpy()), jnp.asarray(right.numpy())) for left, right in factors]

    @jax.jit
    def step(stored: Any) -> Any:
        return [left @ right for left, right in stored]

    def run() -> None:
        for _ in range(times):
            jax.block_until_ready(step(stored))

    return run


def _mlp(first: int, last: int) -> nn.Module:
    sizes = [(first, HIDDEN), (HIDDEN, HIDDEN), (HIDDEN, last)]
    a, b, c = (nn.Linear(*pair) for pair in sizes)
    return nn.Sequential(a, nn.Tanh(), b, nn.Tanh(), c)
