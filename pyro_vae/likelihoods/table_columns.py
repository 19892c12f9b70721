"""Tables whose columns are of several kinds."""

from collections.abc import Callable, Sequence

import pyro.distributions as dist
from torch import Tensor, nn

from pyro_vae import distributions
from pyro_vae import kinds as kinds_of_data
from pyro_vae.errors import InputError
from pyro_vae.kinds import Kind, Stored
from pyro_vae.kinds.columns import ColumnsOf
from pyro_vae.likelihoods.bernoulli import Bernoulli
from pyro_vae.likelihoods.category_columns import Categories, CumulativeLogit
from pyro_vae.likelihoods.count_values import NegativeBinomial, Poisson
from pyro_vae.likelihoods.likelihood import Decoder, Likelihood, Shape
from pyro_vae.likelihoods.logistic_mixture import LogisticMixture
from pyro_vae.likelihoods.positive_values import Gamma, LogNormal
from pyro_vae.likelihoods.real_values import Gaussian, Laplace, StudentT
from pyro_vae.likelihoods.suitable import SUITABLE
from pyro_vae.networks import MLP

NAMED: dict[str, type[Likelihood]] = {
    each.__name__: each
    for each in (
        Bernoulli,
        Categories,
        CumulativeLogit,
        Gamma,
        Gaussian,
        Laplace,
        LogNormal,
        LogisticMixture,
        NegativeBinomial,
        Poisson,
        StudentT,
    )
}


class Columns(Likelihood):
    """Independent columns, each with the likelihood that suits its kind, or with a named one.

    Columns with the same kind and likelihood are a group, and each group has a decoder of its own.

    Args:
        x: what x is: the kind of the table, which knows the kinds of its columns.
        decoder: the network that maps z to the parameters of a group.
        columns: names of likelihoods by the names of columns, such as `{income: Gamma}`.

    Raises:
        InputError: if there is no column or no likelihood of a name, or the likelihood does not
            model the column's kind.
    """

    kinds = (kinds_of_data.Columns,)
    kind: kinds_of_data.Columns

    def __init__(
        self,
        latent_dim: int,
        x: Kind | Shape,
        decoder: Decoder = MLP,
        columns: dict[str, str] | None = None,
    ) -> None:
        nn.Module.__init__(self)
        table = self.kind_of(x)
        assert isinstance(table, kinds_of_data.Columns)
        groups = _grouped(table, columns or {})
        parts = [
            likelihood(latent_dim, kind.of_columns(places), decoder)
            for kind, likelihood, places, _ in groups
        ]
        self.parts = nn.ModuleList(parts)
        self.places = tuple(at for *_, at in groups)
        self.kind = self._table(table.names)
        self.event_shape = self.kind.shape

    def _table(self, names: Sequence[str] | None) -> kinds_of_data.Columns:
        own = [part.kind for part in self._parts]
        return kinds_of_data.Columns([*zip(own, self.places, strict=True)], names)

    @property
    def _parts(self) -> list[Likelihood]:
        return [part for part in self.parts if isinstance(part, Likelihood)]

    def fit_kind(self, stored: Stored) -> None:
        """Let the kinds of all groups take their statistics from training examples."""
        for part, places in zip(self._parts, self.places, strict=True):
            part.fit_kind(ColumnsOf(stored, places))
        self.kind = self._table(self.kind.names)

    def forward(self, z: Tensor) -> dist.Distribution:
        """Return p(x|z)."""
        return self._joint(lambda part, _: part(z))

    def for_training(self, z: Tensor, x: Tensor) -> dist.Distribution:
        """Return p(x|z) for a training step on x."""
        return self._joint(lambda part, places: part.for_training(z, x[..., places]))

    def _joint(
        self, make: Callable[[Likelihood, Sequence[int]], dist.Distribution]
    ) -> dist.Distribution:
        parts = [make(part, at) for part, at in zip(self._parts, self.places, strict=True)]
        return distributions.SideBySide(parts, self.places)

    def typical(self, z: Tensor) -> Tensor:
        """Return what is typical of each column."""
        joint = self(z)
        assert isinstance(joint, distributions.SideBySide)
        return joint.join([part.typical(z) for part in self._parts])

    def initialize(self, images: Tensor) -> None:
        """Start each group at the marginals of its columns."""
        sizes = [part.kind.feature_shape.numel() for part in self._parts]
        for part, features in zip(self._parts, images.split(sizes, -1), strict=True):
            part.initialize(features)


def _grouped(
    table: kinds_of_data.Columns, named: dict[str, str]
) -> list[tuple[Kind, type[Likelihood], list[int], list[int]]]:
    """Return for each group its kind in the table, its likelihood, and the places of its columns.

    The first places are those among the columns of the kind, the second those in the table.
    """
    for name in named:
        if name not in (table.names or ()):
            raise InputError(
                f"the data have no column '{name}': choose {', '.join(table.names or ('none',))}",
                "columns",
            )
    groups = []
    for kind, places in table.parts:
        by_likelihood: dict[type[Likelihood], list[int]] = {}
        for i, place in enumerate(places):
            chosen = named.get(table.names[place]) if table.names else None
            likelihood = _named(chosen) if chosen else SUITABLE[kind.usual]
            by_likelihood.setdefault(likelihood, []).append(i)
        groups += [
            (kind, likelihood, own, [places[i] for i in own])
            for likelihood, own in by_likelihood.items()
        ]
    return groups


def _named(name: str) -> type[Likelihood]:
    if name not in NAMED:
        raise InputError(
            f"no likelihood of columns is named '{name}': choose {', '.join(NAMED)}", "columns"
        )
    return NAMED[name]
