"""The contenders of the benchmark that use PyTorch: the same VAE by us, by Pyro, and by hand.

Unless another architecture is named, it is 784-200-200-50 with tanh. The prior is N(0, I), the
pixels are Bernoulli and drawn again in every step, the optimiser is Adam with a learning rate of
1e-3. A trainer takes `uint8` images of shape [N, 784], the batch size, K, and an architecture; it
returns a function that trains for one epoch, on the images' device. An evaluator takes images and
K, and returns a function that bounds log p(x) by IWAE_K, or by AIS with K temperatures.

Other libraries are in other_libraries.py.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import pyro
import torch
from PIL import Image
from pyro.infer import SVI, RenyiELBO, Trace_ELBO
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, linear, softplus
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms.functional import to_tensor

from pyro_vae import VAE, bounds, likelihoods, networks, objectives, posteriors, priors, training
from pyro_vae.kinds import Binary

PIXELS, HIDDEN, LATENT = 784, 200, 50
IMAGE = [28, 28]
Sizes = tuple[int, int, int]
SIZES: Sizes = (PIXELS, HIDDEN, LATENT)
ARCHITECTURES: dict[str, tuple[Any, Any]] = {  # encoder and decoder
    "mlp": (partial(networks.MLP, widths=[HIDDEN, HIDDEN], activation="Tanh"),) * 2,
    "conv": (networks.ConvEncoder, networks.ConvDecoder),
    "residual": (networks.ResidualEncoder, networks.ResidualDecoder),
    "pixelcnn": (networks.MLP, networks.MLP),
}
CONTEXT = 4  # the number of context values of each pixel that the PixelCNN gets
Epoch = Callable[[], Any]
show = Binary().observe


def drawn(images: Tensor) -> Tensor:
    """Draw pixels eagerly, three times as fast as torch.bernoulli."""
    return (torch.rand(images.shape, device=images.device) * 255 < images).float()


def ours(
    images: Tensor,
    batch: int,
    draws: int,
    architecture: str = "mlp",
    precision: training.Precision = "float32",
    sizes: Sizes = SIZES,
    engine: type[training.EagerEngine] = training.CompiledEngine,
) -> Epoch:
    """pyro_vae as in `svi_train.py`, without checkpoints."""
    vae = our_vae(architecture, sizes).to(images.device)
    objective = objectives.ELBO() if draws == 1 else objectives.IWAE(draws)
    made = engine(vae.model, vae.guide, objective, precision=precision)
    images = _shaped(images, architecture)
    return partial(_epoch, images, batch, lambda x: made.step(x, show))


def ours_bf16(images: Tensor, batch: int, draws: int, architecture: str = "mlp") -> Epoch:
    """pyro_vae with --precision bfloat16."""
    return ours(images, batch, draws, architecture, "bfloat16")


def ours_eager(images: Tensor, batch: int, draws: int, architecture: str = "mlp") -> Epoch:
    """pyro_vae with --engine eager."""
    return ours(images, batch, draws, architecture, engine=training.EagerEngine)


def pyro_svi(images: Tensor, batch: int, draws: int, architecture: str = "mlp") -> Epoch:
    """Pyro's SVI on data in memory, without validation; for several draws RenyiELBO, alpha = 0."""
    step = _pyro_step(draws, architecture, images.device)
    return partial(_epoch, _shaped(images, architecture), batch, lambda x: step(drawn(x)))


def pyro_loader(images: Tensor, batch: int, draws: int, architecture: str = "mlp") -> Epoch:
    """Pyro's SVI as in its VAE tutorial: a DataLoader with a worker, and Pyro's own checks."""
    if architecture != "mlp":
        raise NotImplementedError
    step = _pyro_step(draws, architecture, images.device, checked=True)
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


def plain_torch(images: Tensor, batch: int, draws: int, architecture: str = "mlp") -> Epoch:
    """PyTorch without a library, eager, on data in memory."""
    return _by_hand(images, batch, ByHand(architecture, draws), architecture, lambda vae: vae)


def torch_compiled(images: Tensor, batch: int, draws: int, architecture: str = "mlp") -> Epoch:
    """The same with `torch.compile`, for this batch size alone, as our step is compiled."""
    torch.compiler.reset()  # it would reuse what it has learned about other batch sizes
    compiled = partial(torch.compile, dynamic=False)
    return _by_hand(images, batch, ByHand(architecture, draws), architecture, compiled)


class ByHand(nn.Module):
    """The VAE in plain PyTorch; the KL by Monte Carlo, as elsewhere."""

    def __init__(self, architecture: str, draws: int) -> None:
        super().__init__()
        self.draws, self.architecture = draws, architecture
        encoder, decoder = ARCHITECTURES[architecture]
        event_shape = [PIXELS] if architecture == "mlp" else IMAGE
        outputs = [CONTEXT, *IMAGE] if architecture == "pixelcnn" else event_shape
        self.encoder, self.decoder = encoder(event_shape, [2, LATENT]), decoder([LATENT], outputs)
        if architecture == "pixelcnn":
            self.pixels = networks.GatedPixelCNN(IMAGE, 1, CONTEXT)

    def forward(self, x: Tensor) -> Tensor:
        """Return the negative IWAE_K, summed over a batch."""
        loc, raw = self.encoder(x).unbind(1)
        scale = softplus(raw) + 1e-5
        noise = torch.randn(self.draws, *loc.shape, device=x.device)
        z = loc + scale * noise
        logits = self.decoder(z.flatten(0, 1))
        if self.architecture == "pixelcnn":
            logits = self.pixels(x.repeat(self.draws, 1, 1), logits)
        logits = logits.reshape(self.draws, *x.shape)
        log_x = -binary_cross_entropy_with_logits(
            logits, x.expand_as(logits), reduction="none"
        ).flatten(2)
        log_w = log_x.sum(-1) - 0.5 * (z**2 - noise**2).sum(-1) + scale.log().sum(-1)
        return -(log_w.logsumexp(0) - math.log(self.draws)).sum()


def _by_hand(
    images: Tensor, batch: int, vae: ByHand, architecture: str, compiled: Callable[[Any], Any]
) -> Epoch:
    vae.to(images.device)
    optimizer = torch.optim.Adam(vae.parameters(), lr=1e-3)
    negative_bound = compiled(vae)

    def step(x: Tensor) -> float:
        loss = negative_bound(drawn(x))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss.item()

    return partial(_epoch, _shaped(images, architecture), batch, step)


def products_of_training(
    batch: int, draws: int, sizes: Sizes = SIZES
) -> list[tuple[Tensor, Tensor]]:
    """Return the factors of the matrix products of a step."""
    pixels, hidden, latent = sizes
    encoder = [(batch, *pair) for pair in _layers(pixels, 2 * latent, hidden)]
    decoder = [(batch * draws, *pair) for pair in _layers(latent, pixels, hidden)]
    products = []
    for i, (rows, fan_in, fan_out) in enumerate([*encoder, *decoder]):
        x, weight = torch.randn(rows, fan_in), torch.randn(fan_out, fan_in)
        out = torch.randn(rows, fan_out)
        products += [(x, weight.T), (out.T, x)]
        if i:
            products.append((out, weight))
    return products


def products_of_evaluation() -> list[tuple[Tensor, Tensor]]:
    """Return the factors of the matrix products of the decoder, for 1000 draws."""
    return [
        (torch.randn(1000, fan_in), torch.randn(fan_out, fan_in).T)
        for fan_in, fan_out in _layers(LATENT, PIXELS)
    ]


def products(factors: list[tuple[Tensor, Tensor]], times: int) -> Epoch:
    """Only the matrix products, by PyTorch's own choice of a library: MKL, where it is there."""
    with_results = [(left, right, left @ right) for left, right in factors]

    def run() -> None:
        for _ in range(times):
            for left, right, out in with_results:
                torch.mm(left, right, out=out)

    return run


def products_onednn(factors: list[tuple[Tensor, Tensor]], times: int) -> Epoch:
    """The same products by oneDNN, which PyTorch contains. It may reorder weights in each call."""
    stored = [
        (left.contiguous().to_mkldnn(), right.T.contiguous().to_mkldnn()) for left, right in factors
    ]

    def run() -> None:
        for _ in range(times):
            for left, right in stored:
                linear(left, right)

    return run


def ours_evaluates(images: Tensor, draws: int) -> Epoch:
    """`bounds.evaluate` as in `svi_train.py` and `evaluate.py`; the time includes compiling."""
    vae = our_vae().to(images.device).eval()
    x = show(images)
    return lambda: bounds.evaluate(vae.model, vae.guide, x, draws)


def ours_anneals(images: Tensor, temperatures: int) -> Epoch:
    """`bounds.anneal`, compiled, as it is by default for more images."""
    return _anneals(images, temperatures, True)


def eager_anneals(images: Tensor, temperatures: int) -> Epoch:
    """The same chains in eager Pyro."""
    return _anneals(images, temperatures, False)


def _anneals(images: Tensor, temperatures: int, compiled: bool) -> Epoch:
    vae = our_vae().to(images.device).eval()
    x, settings = show(images), bounds.Settings(temperatures=temperatures)
    return lambda: bounds.anneal(vae.model, vae.guide, x, settings, compile=compiled)


def our_vae(architecture: str = "mlp", sizes: Sizes = SIZES) -> VAE:
    """Return our VAE of an architecture; that of the MLP may have other widths."""
    pixels, hidden, latent = sizes
    encoder, decoder = ARCHITECTURES[architecture]
    if architecture == "mlp":
        encoder = decoder = partial(networks.MLP, widths=[hidden, hidden], activation="Tanh")
    event_shape = [pixels] if architecture == "mlp" else IMAGE
    kind = likelihoods.PixelCNN if architecture == "pixelcnn" else likelihoods.Bernoulli
    return VAE(
        priors.StandardNormal(latent),
        kind(latent, event_shape, decoder),
        posteriors.Normal(event_shape, latent, encoder),
    )


def _shaped(images: Tensor, architecture: str) -> Tensor:
    return images if architecture == "mlp" else images.unflatten(1, IMAGE)


def _epoch(images: Tensor, batch: int, step: Callable[[Tensor], float]) -> float:
    batches = torch.randperm(len(images), device=images.device).split(batch)
    return sum(step(images.index_select(0, chosen)) for chosen in batches)


def _pyro_step(
    draws: int, architecture: str, device: torch.device, checked: bool = False
) -> Callable[[Tensor], float]:
    """Return a step of Pyro's SVI, with its own parameter store."""
    vae = our_vae(architecture).to(device)
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


class _Pictures(Dataset):
    """Images as torchvision's MNIST returns them: one at a time, from PIL, as floats."""

    def __init__(self, images: Tensor) -> None:
        self.images = images.reshape(-1, *IMAGE).numpy()

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Tensor:
        return to_tensor(Image.fromarray(self.images[index]))
