"""Columns of categories, without and with an order."""

from itertools import accumulate

import pyro.distributions as dist
import torch
from torch import Size, Tensor, nn

from pyro_vae import distributions
from pyro_vae import kinds as kinds_of_data
from pyro_vae.likelihoods.likelihood import Decoder, Likelihood, Shape
from pyro_vae.networks import MLP


class Categories(Likelihood):
    """Independent categories. The decoder gives the logits of each column's categories.

    Args:
        x: what x is: the kind of the data, which knows the categories of each column.
        decoder: the network that maps z to the logits, one column after another.
    """

    kinds = (kinds_of_data.Categories,)
    kind: kinds_of_data.Categories

    def __init__(
        self, latent_dim: int, x: kinds_of_data.Kind | Shape, decoder: Decoder = MLP
    ) -> None:
        super().__init__(latent_dim, x, decoder)
        sizes = self.kind.sizes
        # The places of each column's logits, and behind the last the place of one that is -inf.
        places = torch.full((len(sizes), max(sizes)), sum(sizes))
        for row, (size, end) in enumerate(zip(sizes, accumulate(sizes), strict=True)):
            places[row, :size] = torch.arange(end - size, end)
        self.register_buffer("places", places, persistent=False)

    places: Tensor

    @property
    def decoder_shape(self) -> Shape:
        """A logit for each category of each column."""
        return (sum(self.kind.sizes),)

    def forward(self, z: Tensor) -> dist.Distribution:
        """Return p(x|z)."""
        logits = self.decoder(z)
        padded = torch.cat([logits, torch.full_like(logits[..., :1], -torch.inf)], -1)
        return self.independent(_Codes(logits=padded[..., self.places]))

    def initialize(self, images: Tensor) -> None:
        """Set the probabilities to the frequencies in the data, with one more of each category."""
        self.decoder.bias.data.copy_((images.sum(0) + 1).log())

    def typical(self, z: Tensor) -> Tensor:
        """Return the most probable category of each column."""
        logits = self(z).base_dist.logits
        return logits.argmax(-1).to(logits.dtype)


class _Codes(dist.Categorical):
    """A categorical distribution over codes that are floats."""

    def sample(self, sample_shape: Size = Size()) -> Tensor:  # noqa: B008 - as torch declares it
        return super().sample(sample_shape).to(self.logits.dtype)


class CumulativeLogit(Likelihood):
    """Independent ordered categories: a logistic variable, cut into the K categories of its column.

    The decoder gives the location of each column's logistic variable. The K - 1 cutpoints of a
    column are learned: its first, and the logarithms of the distances between neighbours. This is
    the proportional-odds model (McCullagh 1980), with z as the predictor.

    Args:
        x: what x is: the kind of the data, which knows the categories of each column.
        decoder: the network that maps z to the locations.
    """

    kinds = (kinds_of_data.Ordered,)
    kind: kinds_of_data.Ordered

    def __init__(
        self, latent_dim: int, x: kinds_of_data.Kind | Shape, decoder: Decoder = MLP
    ) -> None:
        super().__init__(latent_dim, x, decoder)
        sizes = torch.tensor(self.kind.sizes)
        self.register_buffer("present", self._cuts(sizes), persistent=False)
        first = torch.zeros(len(sizes), int(sizes.max()) - 1)
        first[:, 0] = -(sizes - 2) / 2  # the middle one is zero
        self.cuts = nn.Parameter(first)

    present: Tensor

    @staticmethod
    def _cuts(sizes: Tensor) -> Tensor:
        """Return whether each column has a first, second, .. cutpoint, shape [D, max(K) - 1]."""
        return torch.arange(int(sizes.max()) - 1) < sizes.unsqueeze(-1) - 1

    @property
    def cutpoints(self) -> Tensor:
        """The cutpoints, shape [D, max(K) - 1], and infinity where a column has fewer.

        They are `float64`, in which neighbours with a distance of e^-12 are not rounded to one.
        """
        cuts = self.cuts.double()
        first, distances = cuts[:, :1], cuts[:, 1:].clamp(-12, 12).exp()
        cutpoints = torch.cat([first, first + distances.cumsum(-1)], -1)
        return cutpoints.masked_fill(~self.present, torch.inf)

    def forward(self, z: Tensor) -> dist.Distribution:
        """Return p(x|z)."""
        return self.independent(distributions.CumulativeLogit(self.decoder(z), self.cutpoints))

    def initialize(self, images: Tensor) -> None:
        """Set the cutpoints from the frequencies in the data, with half one more of each."""
        sizes = torch.tensor(self.kind.sizes, device=images.device)
        codes = (images * (sizes - 1)).round()
        edges = torch.arange(self.cuts.shape[1]).to(images)
        below = (codes.unsqueeze(-1) <= edges).sum(0) + 0.5 * (edges + 1)
        cutpoints = (below / (len(codes) + 0.5 * sizes.unsqueeze(-1))).logit()
        cutpoints = torch.where(self.present, cutpoints, edges)
        distances = cutpoints.diff(dim=-1).clamp(min=1e-6).log()
        self.cuts.data.copy_(torch.cat([cutpoints[:, :1], distances], -1))
