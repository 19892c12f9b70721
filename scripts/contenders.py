"""The contenders of the benchmark: the same VAE, trained and evaluated by each library's own means.

The architecture is 784-200-200-50 with tanh, the prior N(0, I), Bernoulli pixels that are drawn
again in every step, Adam with a learning rate of 1e-3, and one draw of z for each image. A trainer
takes `uint8` images of shape [N, 784], the batch size, and K; it returns a function that trains for
one epoch. An evaluator takes images and K, and returns a function that bounds log p(x) by IWAE_K.
"""

import math
import tempfile
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import Any

import pyro
import torch
from PIL import Image
from pyro.infer import SVI, RenyiELBO, Trace_ELBO
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, softplus
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms.functional import to_tensor

from pyro_vae import VAE, bounds, likelihoods, networks, objectives, posteriors, priors, training
from pyro_vae.kinds import Binary

PIXELS, HIDDEN, LATENT = 784, 200, 50
Sizes = tuple[int, int, int]
SIZES: Sizes = (PIXELS, HIDDEN, LATENT)
Epoch = Callable[[], Any]
show = Binary().observe


def drawn(images: Tensor) -> Tensor:
    """Draw pixels eagerly, three times as fast as torch.bernoulli."""
    return (torch.rand(images.shape) * 255 < images).float()


def ours(
    images: Tensor,
    batch: int,
    draws: int,
    precision: training.Precision = "float32",
    sizes: Sizes = SIZES,
) -> Epoch:
    """pyro_vae as in `svi_train.py`, without checkpoints."""
    vae = our_vae(sizes)
    objective = objectives.ELBO() if draws == 1 else objectives.IWAE(draws)
    engine = training.CompiledEngine(vae.model, vae.guide, objective, precision=precision)
    return partial(_epoch, images, batch, lambda x: engine.step(x, show))


def ours_bf16(images: Tensor, batch: int, draws: int) -> Epoch:
    """pyro_vae with --precision bfloat16."""
    return ours(images, batch, draws, "bfloat16")


def pyro_svi(images: Tensor, batch: int, draws: int) -> Epoch:
    """Pyro's SVI on data in memory, without validation; for several draws RenyiELBO, alpha = 0."""
    step = _pyro_step(draws)
    return partial(_epoch, images, batch, lambda x: step(drawn(x)))


def pyro_loader(images: Tensor, batch: int, draws: int) -> Epoch:
    """Pyro's SVI as in its VAE tutorial: a DataLoader with a worker, and Pyro's own checks."""
    step = _pyro_step(draws, checked=True)
    # One worker for all epochs, and spawned, because JAX runs in this process and cannot be forked.
    loader = DataLoader(
        _Pictures(images),
        batch,
        shuffle=True,
        num_workers=1,
        persistent_workers=True,
        multiprocessing_context="spawn",
    )

    def epoch() -> None:
        for x in loader:
            step(torch.bernoulli(x.reshape(len(x), -1)))

    return epoch


def plain_torch(images: Tensor, batch: int, draws: int) -> Epoch:
    """PyTorch without a library, eager, on data in memory; the KL by Monte Carlo, as elsewhere."""
    encoder, decoder = _mlp(PIXELS, 2 * LATENT), _mlp(LATENT, PIXELS)
    optimizer = torch.optim.Adam([*encoder.parameters(), *decoder.parameters()], lr=1e-3)

    def step(x: Tensor) -> float:
        x = drawn(x)
        loc, raw = encoder(x).chunk(2, -1)
        scale = softplus(raw) + 1e-5
        noise = torch.randn(draws, *loc.shape)
        z = loc + scale * noise
        logits = decoder(z)
        log_x = -binary_cross_entropy_with_logits(
            logits, x.expand_as(logits), reduction="none"
        ).sum(-1)
        log_w = log_x - 0.5 * (z**2 - noise**2).sum(-1) + scale.log().sum(-1)
        loss = -(log_w.logsumexp(0) - math.log(draws)).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss.item()

    return partial(_epoch, images, batch, step)


def pythae(images: Tensor, batch: int, draws: int) -> Epoch:
    """Pythae's trainer, on its own data loader."""
    from pythae.data.datasets import BaseDataset
    from pythae.trainers import BaseTrainer, BaseTrainerConfig

    if draws != 1:
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


def numpyro(images: Tensor, batch: int, draws: int) -> Epoch:
    """NumPyro with an epoch in one jitted loop; data in memory, pixels drawn in the loop."""
    import jax
    import jax.numpy as jnp
    from numpyro import infer, optim

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


def bare_products(images: Tensor, batch: int, draws: int, sizes: Sizes = SIZES) -> Epoch:
    """Only the matrix products of a step."""
    pixels, hidden, latent = sizes
    encoder = [(batch, *pair) for pair in _layers(pixels, 2 * latent, hidden)]
    decoder = [(batch * draws, *pair) for pair in _layers(latent, pixels, hidden)]
    products = []
    for i, (rows, fan_in, fan_out) in enumerate([*encoder, *decoder]):
        x, weight, out = (
            torch.randn(rows, fan_in),
            torch.randn(fan_out, fan_in),
            torch.randn(rows, fan_out),
        )
        products += [(x, weight.T, out), (out.T, x, torch.empty_like(weight))]
        if i:
            products.append((out, weight, torch.empty_like(x)))

    def epoch() -> None:
        for _ in range(len(images) // batch):
            for left, right, out in products:
                torch.mm(left, right, out=out)

    return epoch


def ours_evaluates(images: Tensor, draws: int) -> Epoch:
    """`bounds.evaluate` as in `svi_train.py` and `evaluate.py`; the time includes compiling."""
    vae = our_vae().eval()
    x = show(images)
    return lambda: bounds.evaluate(vae.model, vae.guide, x, draws)


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


def bare_products_evaluate(images: Tensor, draws: int) -> Epoch:
    """Only the matrix products of the decoder, for 1000 draws at a time."""
    products = [
        (torch.randn(1000, fan_in), torch.randn(fan_out, fan_in).T, torch.empty(1000, fan_out))
        for fan_in, fan_out in _layers(LATENT, PIXELS)
    ]

    def run() -> None:
        for _ in range(len(images) * draws // 1000):
            for left, right, out in products:
                torch.mm(left, right, out=out)

    return run


EVALUATORS = (ours_evaluates, pythae_evaluates, numpyro_evaluates, bare_products_evaluate)
SLOWER = {pythae_evaluates: 100}  # this many times fewer images are evaluated
TRAINERS = (
    ours,
    ours_bf16,
    pyro_svi,
    pyro_loader,
    plain_torch,
    pythae,
    numpyro,
    bare_products,
)


def _epoch(images: Tensor, batch: int, step: Callable[[Tensor], float]) -> float:
    batches = torch.randperm(len(images)).split(batch)
    return sum(step(images.index_select(0, chosen)) for chosen in batches)


def our_vae(sizes: Sizes = SIZES) -> VAE:
    """Return our VAE of the architecture above, or of other widths."""
    pixels, hidden, latent = sizes
    network = partial(networks.MLP, widths=[hidden, hidden], activation="Tanh")
    return VAE(
        priors.StandardNormal(latent),
        likelihoods.Bernoulli(latent, [pixels], network),
        posteriors.Normal([pixels], latent, network),
    )


def _pyro_step(draws: int, checked: bool = False) -> Callable[[Tensor], float]:
    """Return a step of Pyro's SVI, with its own parameter store."""
    vae = our_vae()
    loss = (
        Trace_ELBO()
        if draws == 1
        else RenyiELBO(alpha=0, num_particles=draws, vectorize_particles=True)
    )
    inference = SVI(vae.model, vae.guide, pyro.optim.Adam({"lr": 1e-3}), loss)
    store: dict[str, Any] = {"params": {}, "constraints": {}}

    def step(x: Tensor) -> float:
        with pyro.get_param_store().scope(store), pyro.validation_enabled(checked):
            with pyro.distributions.validation_enabled(False):
                return inference.step(x)

    return step


def _layers(first: int, last: int, hidden: int = HIDDEN) -> list[tuple[int, int]]:
    return [(first, hidden), (hidden, hidden), (hidden, last)]


def _mlp(first: int, last: int) -> nn.Module:
    a, b, c = (nn.Linear(*pair) for pair in _layers(first, last))
    return nn.Sequential(a, nn.Tanh(), b, nn.Tanh(), c)


class _Pictures(Dataset):
    """Images as torchvision's MNIST returns them: one at a time, from PIL, as floats."""

    def __init__(self, images: Tensor) -> None:
        self.images = images.reshape(-1, 28, 28).numpy()

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Tensor:
        return to_tensor(Image.fromarray(self.images[index]))
