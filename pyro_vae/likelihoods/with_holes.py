"""The likelihood of the observed values of data with holes."""

import pyro.distributions as dist
import torch
from torch import Tensor, nn

from pyro_vae import distributions
from pyro_vae import kinds as kinds_of_data
from pyro_vae.errors import InputError
from pyro_vae.kinds import Stored
from pyro_vae.likelihoods.likelihood import Likelihood


class ObservedEntries(Likelihood):
    """p(observed values | z), by a likelihood of whole examples.

    The values of an example have to be independent, given z. Those that are missing then leave
    their factors out. An importance-weighted bound with this likelihood is MIWAE's (Mattei &
    Frellsen 2019, equation 4).

    Args:
        whole: the likelihood of whole examples.

    Raises:
        InputError: if it fits a scale to the whole examples of a batch, or takes their totals as
            known; and by `forward`, if its values depend on each other, given z.

    Examples:
        >>> import torch
        >>> from pyro_vae import likelihoods
        >>> likelihood = likelihoods.ObservedEntries(likelihoods.Gaussian(2, [3]))
        >>> x = torch.tensor([[0.5, torch.nan, 0.1], [torch.nan, torch.nan, torch.nan]])
        >>> likelihood(torch.zeros(2, 2)).log_prob(x)[1].item()
        0.0
    """

    kinds = (kinds_of_data.Incomplete,)
    kind: kinds_of_data.Incomplete

    def __init__(self, whole: Likelihood) -> None:
        nn.Module.__init__(self)
        self.whole = whole
        self.kind = kinds_of_data.Incomplete(whole.kind)
        self.event_shape = whole.event_shape
        name = type(whole).__name__
        if getattr(whole, "noise", None) == "optimal":
            raise InputError(
                f"the scale of {name} is fitted to whole examples: choose learned noise for data "
                "with missing values",
                "noise",
            )

    def fit_kind(self, stored: Stored) -> None:
        """Let the kind take its statistics from the values that are there."""
        self.whole.fit_kind(stored)
        self.kind = kinds_of_data.Incomplete(self.whole.kind)

    def forward(self, z: Tensor) -> dist.Distribution:
        """Return p(x|z), whose log-probability is that of the values that are not NaN."""
        return self._observed(self.whole(z))

    def for_training(self, z: Tensor, x: Tensor) -> dist.Distribution:
        """Return p(x|z) for a training step on x."""
        return self._observed(self.whole.for_training(z, self.kind.fill(x)))

    def _observed(self, whole: dist.Distribution) -> dist.Distribution:
        try:
            return distributions.ObservedEntries(whole, self.kind.filler)
        except ValueError as error:
            raise InputError(
                f"the likelihood {type(self.whole).__name__} makes values depend on each other, so "
                "it has no probability of some of them alone: fill the missing values, or choose "
                "another likelihood",
                "likelihood",
            ) from error

    def typical(self, z: Tensor) -> Tensor:
        """Return what is typical of p(x|z), for all values."""
        return self.whole.typical(z)

    def picture(self, z: Tensor) -> Tensor:
        """Return an image of all values."""
        return self.whole.picture(z)

    def initialize(self, images: Tensor) -> None:
        """Start at the marginals of the values that are there.

        Missing features are replaced by those of other examples, drawn at random.
        """
        features, there = self.kind.parted(images)
        flat, known = features.flatten(1).clone(), there.flatten(1)
        for place in range(flat.shape[1]):
            own = flat[known[:, place], place]
            holes = ~known[:, place]
            if len(own) and holes.any():
                flat[holes, place] = own[torch.randint(len(own), (int(holes.sum()),))]
        self.whole.initialize(flat.view(features.shape))
