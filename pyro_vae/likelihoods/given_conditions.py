"""The likelihood p(x | z, y) of data with conditions y."""

import copy

import pyro.distributions as dist
import torch
from torch import Tensor, nn

from pyro_vae import distributions
from pyro_vae import kinds as kinds_of_data
from pyro_vae.errors import InputError
from pyro_vae.kinds import Kind, Stored
from pyro_vae.likelihoods.likelihood import Likelihood


class Given(Likelihood):
    """p(x | z, y), by a likelihood whose codes are [z, features of y].

    A bound with this likelihood is a bound on log p(x | y) (Sohn, Lee & Yan 2015, equation 4). An
    example is [x flattened, y], see `kinds.Conditional`; so is what is drawn from p(x | z, y), and
    what is typical of it. The model takes y from the examples that it observes. Whoever decodes
    codes alone fixes the conditions first: `likelihood.under(x).picture(z)`.

    Args:
        whole: the likelihood of x; the dimension of its codes is that of z, plus the number of
            features of y, `given.feature_shape[0]`. It may be an `ObservedEntries`.
        given: what y is.

    Raises:
        InputError: if y is no vector, or may have missing values; and by `forward`, if the
            conditions are not fixed.

    Examples:
        >>> import torch
        >>> from pyro_vae import kinds, likelihoods
        >>> label = kinds.Categories([1], ["label"], [["cat", "dog", "fox"]])
        >>> likelihood = likelihoods.Given(likelihoods.Bernoulli(2 + 3, [28, 28]), label)
        >>> x = likelihood.kind.packed(torch.zeros(5, 28, 28), torch.ones(5, 1))
        >>> likelihood.under(x).picture(torch.zeros(5, 2)).shape
        torch.Size([5, 28, 28])
    """

    kinds = (kinds_of_data.Conditional,)
    kind: kinds_of_data.Conditional
    conditions: Tensor | None = None  # in the object that `under` returns

    def __init__(self, whole: Likelihood, given: Kind) -> None:
        nn.Module.__init__(self)
        self.whole = whole
        self.kind = kinds_of_data.Conditional(whole.kind, given)
        self.event_shape = self.kind.shape

    def fit_kind(self, stored: Stored) -> None:
        """Let the kinds of x and of y take their statistics from training examples."""
        x, y = self.kind.parted_store(stored)
        self.whole.fit_kind(x)
        self.kind = kinds_of_data.Conditional(self.whole.kind, self.kind.given.fitted(y))

    def under(self, x: Tensor) -> Likelihood:
        """Return the likelihood with the conditions of these examples; see `Likelihood.under`."""
        fixed = copy.copy(self)
        fixed.conditions = self.kind.parted(x)[1]
        return fixed

    def forward(self, z: Tensor) -> dist.Distribution:
        """Return p(x | z, y) for the fixed conditions."""
        y = self._fixed()
        return distributions.WithConditions(self.whole(self._codes(z, y)), y)

    def given(self, z: Tensor, x: Tensor) -> dist.Distribution:
        """Return p(x | z, y) for the model to observe x, with the conditions of x."""
        own, y = self.kind.parted(x)
        return distributions.WithConditions(self.whole.given(self._codes(z, y), own), y)

    def typical(self, z: Tensor) -> Tensor:
        """Return what is typical of p(x | z, y), with the fixed conditions, [..., D + Dy]."""
        y = self._fixed()
        x = self.whole.typical(self._codes(z, y)).flatten(-len(self.kind.of.shape))
        return torch.cat([x, y.expand(*x.shape[:-1], -1).to(x)], -1)

    def picture(self, z: Tensor) -> Tensor:
        """Return an image of x for each z under the fixed conditions, [..., *kind.of.shape]."""
        return self.whole.picture(self._codes(z, self._fixed()))

    def initialize(self, images: Tensor) -> None:
        """Set the first values of parameters from the features of x."""
        self.whole.initialize(self.kind.parted_features(images)[0])

    def _fixed(self) -> Tensor:
        if self.conditions is None:
            raise InputError(
                "p(x | z, y) needs conditions y: fix those of some examples x by under(x), or give "
                "y to the model",
                "y",
            )
        return self.conditions

    def _codes(self, z: Tensor, y: Tensor) -> Tensor:
        """Return [z, features of y], the codes of the likelihood of x."""
        features = self.kind.given.features(y).to(z)
        batch = torch.broadcast_shapes(z.shape[:-1], features.shape[:-1])
        return torch.cat([z.expand(*batch, -1), features.expand(*batch, -1)], -1)
