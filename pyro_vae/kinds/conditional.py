"""Data with conditions: x together with a y that p(x | y) is conditional on."""

from collections.abc import Iterator
from typing import Self

import torch
from torch import Tensor

from pyro_vae.errors import InputError
from pyro_vae.kinds.base_measure import BaseMeasure
from pyro_vae.kinds.incomplete import Incomplete
from pyro_vae.kinds.kind import Binarization, Kind, Stored, rows_at_once
from pyro_vae.kinds.statistics import column, column_names


class Conditional(Kind):
    """Examples x of one kind, each with its conditions y of another: log p is log p(x | y).

    An example and its conditions travel together as one vector, [x flattened, y]: stored examples
    and x as programs see it have this form. So batches, engines and bounds treat them as any other
    data. Values of x may be missing; y is known for every example.

    The encoder sees the features of x, and beside them those of y: at the end of a vector, or as
    further channels of a picture, each of which is constant.

    Args:
        of: what x is.
        given: what y is; vectors, such as one column of categories for a label.

    Raises:
        InputError: if y is no vector, or may have missing values.
    """

    def __init__(self, of: Kind, given: Kind) -> None:
        if isinstance(given, Incomplete):
            raise InputError(
                "conditions have to be known for every example, and some of these are missing: "
                "drop the examples that lack them, or give other conditions",
                "condition",
            )
        if len(given.shape) != 1 or len(of.shape) == 0:
            raise InputError(
                f"conditions are columns, and examples have a shape: conditions of shape "
                f"{list(given.shape)} for examples of shape {list(of.shape)} cannot be used",
                "condition",
            )
        names = None
        if of.names is not None and given.names is not None:
            names = (*of.names, *given.names)
        self.size = of.shape.numel()
        super().__init__([self.size + given.shape[0]], names)
        self.of, self.given = of, given
        self.name = f"{of.name} given {self._conditions}"

    def __str__(self) -> str:
        return f"{self.of}, given {self._conditions}"

    @property
    def _conditions(self) -> str:
        return ", ".join(column_names(self.given))

    @property
    def feature_shape(self) -> torch.Size:
        """The features of x and of y: a vector, or the channels of a picture."""
        own, conditions = self.of.feature_shape, self.given.feature_shape[0]
        if len(own) == 1:
            return torch.Size([own[0] + conditions])
        return torch.Size([own[:-2].numel() + conditions, *own[-2:]])

    @property
    def place_of_feature(self) -> Tensor:
        """The place of the value that each feature of a vector is made from, shape [features]."""
        return torch.cat([self.of.place_of_feature, self.size + self.given.place_of_feature])

    @property
    def num_categories(self) -> Tensor:
        """The numbers of categories of all values of x and of y, shape [D + Dy]."""
        return self._of_both(self.of.num_categories, self.given.num_categories)

    @property
    def filler(self) -> Tensor:
        """A possible value of each value of x and of y, shape [D + Dy]."""
        return self._of_both(self.of.filler, self.given.filler)

    @property
    def dims(self) -> int:
        """The number of values of x."""
        return self.size

    @property
    def is_picture(self) -> bool:
        """Whether x is a picture."""
        return self.of.is_picture

    @classmethod
    def seeing(cls, data: Kind) -> Self | None:
        """Return this kind for data with conditions alone."""
        return data if isinstance(data, cls) else None

    def packed(self, x: Tensor, y: Tensor) -> Tensor:
        """Return examples with their conditions.

        Args:
            x: examples, stored or as the likelihood sees them, shape [..., *of.shape].
            y: conditions in the same form, shape [..., Dy].

        Returns:
            A tensor of shape [..., D + Dy], of the type of x if that has the values of y.
        """
        x = x.flatten(-len(self.of.shape))
        if not x.is_floating_point() and bool((y.to(x.dtype) == y).all()):
            return torch.cat([x, y.to(x.dtype)], -1)
        dtype = x.dtype
        if not dtype.is_floating_point:
            dtype = torch.float32 if x.itemsize < 4 else torch.float64
        rounded = y.to(dtype).double() != y.double()
        if (rounded & (y == y.round())).any():  # a whole number that single precision lacks
            dtype = torch.float64
        return torch.cat([x.to(dtype), y.to(dtype)], -1)

    def parted(self, packed: Tensor) -> tuple[Tensor, Tensor]:
        """Part what `packed` returns into x, shape [..., *of.shape], and y, shape [..., Dy]."""
        x, y = packed[..., : self.size], packed[..., self.size :]
        return x.reshape(*packed.shape[:-1], *self.of.shape), y

    def parted_features(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Part features into those of x and those of y.

        Args:
            features: what `features` returns, shape [..., *feature_shape].

        Returns:
            Tensors of shape [..., *of.feature_shape] and [..., *given.feature_shape].
        """
        conditions = self.given.feature_shape[0]
        if len(self.of.feature_shape) == 1:
            return features[..., :-conditions], features[..., -conditions:]
        leading = features.shape[: features.dim() - 3]
        own = features[..., :-conditions, :, :].reshape(*leading, *self.of.feature_shape)
        return own, features[..., -conditions:, 0, 0]

    def parted_store(self, stored: Stored) -> tuple[Stored, Stored]:
        """Part stored examples into x and y without reading them."""
        size = self.size
        return _Part(stored, slice(size), self.of.shape), _Part(
            stored, slice(size, None), self.given.shape
        )

    def text(self, place: int, value: float) -> str:
        """Return how a person reads a value of x, or of y, whose columns follow those of x."""
        if place < self.size:
            return self.of.text(place, value)
        return self.given.text(place - self.size, value)

    def fitted(self, stored: Stored) -> Self:
        """Return the kind with the statistics of x and of y."""
        x, y = self.parted_store(stored)
        return type(self)(self.of.fitted(x), self.given.fitted(y))

    def check(self, stored: Stored) -> None:
        """Refuse values of x and of y that are not of their kinds, and missing ones of y.

        Raises:
            InputError: with the values that the examples have, and the values that are expected.
        """
        x, y = self.parted_store(stored)
        self.of.check(x)
        for part in y.split(rows_at_once(y.shape)):
            missing = part.isnan().any(0).nonzero()[:, 0].tolist()
            if missing:
                raise InputError(
                    f"{column(self.given, missing[0])} is a condition, and is missing in some "
                    "examples: conditions have to be known, so drop these examples",
                    "condition",
                )
        self.given.check(y)

    def observe(self, stored: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Return x and y for stored examples, with fresh noise if their kinds have noise."""
        x, y = self.parted(stored)
        shown = self.of.observe(x, generator), self.given.observe(y, generator)
        return torch.cat([shown[0].flatten(-len(self.of.shape)), shown[1]], -1)

    def binarize(self, stored: Tensor, method: Binarization, seed: int) -> Tensor:
        """Apply a method of binarisation to x; see `Kind.binarize`."""
        if method == "dynamic":
            return stored
        x, y = self.parted(stored)
        return self.packed(self.of.binarize(x, method, seed), y)

    def base_measure(self) -> BaseMeasure:
        """Return the measure of x, given the conditions."""
        measure = self.of.base_measure()
        name = f"{measure.name}, given {self._conditions}"
        return BaseMeasure(name, measure.counts, measure.shift)

    def shift(self, x: Tensor) -> Tensor | float:
        """Return the shift of log p(x | y): that of x; see `Kind.shift`."""
        return self.of.shift(self.parted(x)[0])

    def measured(self, stored: Tensor, x: Tensor) -> Tensor:
        """Return held-out x in the form that log p(x | y) refers to, and y."""
        own_stored, y = self.parted(stored)
        return self.packed(self.of.measured(own_stored, self.parted(x)[0]), y)

    def features(self, x: Tensor) -> Tensor:
        """Return the features of x and of y, shape [..., *feature_shape]."""
        own, y = self.parted(x)
        return self._beside(self.of.features(own), self.given.features(y))

    def stored_features(self, stored: Tensor) -> Tensor:
        """Return the features of stored examples without noise; see `Kind.stored_features`."""
        x, y = self.parted(stored)
        return self._beside(self.of.stored_features(x), self.given.stored_features(y))

    def intensities(self, x: Tensor) -> Tensor:
        """Return the intensities of x without y, shape [..., *of.shape]."""
        return self.of.intensities(self.parted(x)[0])

    def could_show(self, x: Tensor, features: Tensor) -> Tensor:
        """Return which examples each x can come from: those with the same y that x fits."""
        own, y = self.parted(x)
        own_features, conditions = self.parted_features(features)
        return self.given.could_show(y, conditions) & self.of.could_show(own, own_features)

    def _beside(self, features: Tensor, conditions: Tensor) -> Tensor:
        conditions = conditions.to(features)
        if len(self.of.feature_shape) == 1:
            return torch.cat([features, conditions], -1)
        leading = features.shape[: features.dim() - len(self.of.feature_shape)]
        height, width = features.shape[-2:]
        channels = conditions[..., None, None].expand(*conditions.shape, height, width)
        return torch.cat([features.reshape(*leading, -1, height, width), channels], -3)

    def _of_both(self, of_x: Tensor, of_y: Tensor) -> Tensor:
        return torch.cat([of_x.expand(self.of.shape).flatten(), of_y.expand(self.given.shape)])


class _Part:
    """Stored x, or stored y, of stored examples with conditions.

    Args:
        stored: packed examples, shape [N, D + Dy].
        places: the places of the part.
        shape: the shape of one example of the part.
    """

    def __init__(self, stored: Stored, places: slice, shape: torch.Size) -> None:
        self._stored, self._places, self._event = stored, places, shape
        self.shape = torch.Size([len(stored), *shape])
        self.device = stored.device

    def __len__(self) -> int:
        return len(self._stored)

    def split(self, size: int) -> Iterator[Tensor]:
        """Return all examples of the part, so many at a time or fewer."""
        for part in self._stored.split(size):
            yield part[:, self._places].reshape(len(part), *self._event)


def has_holes(kind: Kind) -> bool:
    """Return whether values of x may be missing, with or without conditions."""
    return isinstance(kind.of if isinstance(kind, Conditional) else kind, Incomplete)
