"""The base class of all kinds of data."""

import copy
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from typing import Literal, Protocol, Self

import torch
from torch import Tensor

from pyro_vae.errors import InputError
from pyro_vae.kinds.base_measure import BaseMeasure

Binarization = Literal["dynamic", "static", "threshold"]

ROWS, CHUNK = 4096, 2**24  # at most so many examples, and bytes of them as `float32`


class Stored(Protocol):
    """Stored examples: a tensor, or what reads them when they are needed."""

    @property
    def shape(self) -> torch.Size:
        """[N, *shape]."""

    @property
    def device(self) -> torch.device:
        """Where they are."""

    def __len__(self) -> int: ...

    def split(self, size: int, /) -> Iterable[Tensor]:
        """Return all examples, so many at a time or fewer."""


def rows_at_once(shape: torch.Size) -> int:
    """Return how many examples are looked at together: data may be larger than memory.

    The number depends on their shape alone, so that sums over examples are the same numbers in
    whatever way the examples are stored.
    """
    return max(1, min(ROWS, CHUNK // (4 * max(1, shape[1:].numel()))))


class Kind(ABC):
    """What x is: its values, its shape, and its forms.

    An example has four forms:

    - *stored*, as data sets hold it: a tensor that `check` accepts, shape [N, *shape];
    - *x*, as the likelihood sees it: `observe` makes it from stored examples, `float32`, of the
      same shape;
    - *features*, as the encoder sees it: `features` makes them from x, `stored_features` from
      stored examples, shape [N, *feature_shape];
    - *intensities*, as a person sees it in a figure: `intensities` makes them from x, on a scale
      from 0 (black) to 1 (white), of the shape of x.

    A kind also knows which measure log p(x) refers to. Data sets find out their kind, and each
    likelihood says which kinds it models: `seeing` makes one of these of the data's kind. Grey
    levels can be seen as binary pixels, for example. The package asks the kind for these forms and
    assumes nothing else about the values.

    Args:
        shape: the shape of one example.
        names: the names of its columns, for tables.

    Attributes:
        name: the kind's name in reports, and in `bounds.json` as `support`.
        usual: the kind as which such data are usually modelled: by default this one. The digits
            are levels, and usually modelled as binary pixels.
    """

    name: str

    def __init__(self, shape: Sequence[int] = (), names: Sequence[str] | None = None) -> None:
        self.shape = torch.Size(shape)
        self.names = None if names is None else tuple(names)
        self.usual: type[Kind] = type(self)

    def __str__(self) -> str:
        return self.name

    @property
    def feature_shape(self) -> torch.Size:
        """The shape of the features of one example."""
        return self.shape

    @property
    def place_of_feature(self) -> Tensor:
        """The place of the value that each feature of a vector is made from, shape [features]."""
        return torch.arange(self.feature_shape.numel())

    @property
    def num_categories(self) -> Tensor:
        """How many values each value of x is one of, 0 if it is a number; shape [] or an example's.

        Of categories the most probable one is reported, of numbers the mean.
        """
        return torch.zeros((), dtype=torch.long)

    @property
    def filler(self) -> Tensor:
        """A value of x that stands where one is missing, shape [] or that of an example.

        It only has to be possible, and not extreme: it enters no probability.
        """
        return torch.zeros(())

    @property
    def dims(self) -> int:
        """The number of values in an example that p(x|z) is the probability of."""
        return self.shape.numel()

    @property
    def is_picture(self) -> bool:
        """Whether a person sees an example as a picture, and not as the row of a table."""
        return len(self.shape) > 1

    @classmethod
    def seeing(cls, data: "Kind") -> Self | None:
        """Return this kind for data of another kind; None if such data cannot be seen so.

        By default any data can, and `check` refuses values that do not fit.
        """
        return data if isinstance(data, cls) else cls(data.shape, data.names)

    def text(self, place: int, value: float) -> str:
        """Return how a person reads a value of a column of vectors.

        Args:
            place: the place of the column.
            value: a value of x.
        """
        return f"{value:,.0f}" if 1000 <= abs(value) < 1e7 else f"{value:.4g}"

    def of_columns(self, places: Sequence[int]) -> Self:
        """Return the kind of some columns of a table.

        Args:
            places: their places among the columns of this kind.
        """
        kind = copy.copy(self)
        kind.shape = torch.Size([len(places)])
        kind.names = None if self.names is None else tuple(self.names[place] for place in places)
        return kind

    def fitted(self, stored: Stored) -> Self:
        """Return the kind with its statistics, such as a mean, from training examples.

        Args:
            stored: training examples, shape [N, *shape].
        """
        return self

    @abstractmethod
    def check(self, stored: Stored) -> None:
        """Refuse stored examples that are not of this kind.

        Raises:
            InputError: with the values that the examples have, and the values that are expected.
        """

    @abstractmethod
    def observe(self, stored: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Return x for stored examples, with fresh noise if the kind has noise.

        Args:
            stored: stored examples, shape [N, *shape].
            generator: the source of the noise, on the examples' device; by default the global
                generator.
        """

    def observe_once(self, stored: Tensor, seed: int) -> Tensor:
        """Return x for held-out examples, with noise that depends on `seed` only."""
        return self.observe(stored, torch.Generator(stored.device).manual_seed(seed))

    def binarize(self, stored: Tensor, method: Binarization, seed: int) -> Tensor:
        """Apply a method of binarisation; only binary kinds know a method other than `dynamic`.

        Args:
            stored: stored examples, shape [N, *shape].
            method: `dynamic` returns the examples unchanged, and `observe` draws their pixels each
                time; `static` draws them once; `threshold` compares them with one half.
            seed: the seed of the static draw.

        Returns:
            Stored examples of the same type.

        Raises:
            InputError: if the kind does not know the method.
        """
        if method != "dynamic":
            raise InputError(
                f"binarization '{method}' is for binary likelihoods, and this likelihood's data "
                f"are of the kind {self.name}: leave it out",
                "binarization",
            )
        return stored

    @abstractmethod
    def base_measure(self) -> BaseMeasure:
        """Return the measure on which log p(x) is reported."""

    @property
    def value_shifts(self) -> Tensor:
        """The part of each value in the shift of the base measure, shape [] or an example's."""
        return torch.zeros((), dtype=torch.float64)

    def shift(self, x: Tensor) -> Tensor | float:
        """Return the nats that are added to log p(x) to have it on the base measure.

        Args:
            x: examples as the likelihood sees them, shape [N, *shape].

        Returns:
            One number, or one for each example, shape [N].
        """
        return self.base_measure().shift

    def measured(self, stored: Tensor, x: Tensor) -> Tensor:
        """Return held-out examples in the form that log p(x) refers to.

        Args:
            stored: stored examples, shape [N, *shape].
            x: the same examples, as the likelihood sees them.
        """
        return stored

    def features(self, x: Tensor) -> Tensor:
        """Return x as encoders see it, shape [..., *feature_shape]."""
        return x

    def stored_features(self, stored: Tensor) -> Tensor:
        """Return the features of stored examples without noise, `float32`.

        Priors and likelihoods are initialised from these.
        """
        return self.features(self.observe(stored))

    def in_units(self, loc: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
        """Return a decoder's locations and scales in the units of x; by default unchanged.

        Decoders work in the units of the features, whose scale is about one.
        """
        return loc, scale

    @abstractmethod
    def intensities(self, x: Tensor) -> Tensor:
        """Return x as figures and image statistics see it, of the same shape.

        0 is black and 1 is white. Figures cut values outside of [0, 1] off. Conditions that come
        with x are left out.
        """

    def could_show(self, x: Tensor, features: Tensor) -> Tensor:
        """Return which of some examples each x can come from.

        By default those with the same features, up to rounding.

        Args:
            x: examples as the likelihood sees them, shape [N, *shape].
            features: examples as `stored_features` returns them, shape [M, *feature_shape].

        Returns:
            Whether `observe` can have returned x[n] for example m, shape [N, M].
        """
        own, others = self.features(x).flatten(1), features.flatten(1)
        return torch.cdist(own, others, p=torch.inf) < 1e-5 * (1 + own.abs().amax(1, keepdim=True))
