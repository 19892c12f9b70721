"""The base class of all kinds of data."""

from abc import ABC, abstractmethod
from typing import ClassVar, Literal

import torch
from torch import Tensor

from pyro_vae.errors import InputError
from pyro_vae.kinds.base_measure import BaseMeasure

Binarization = Literal["dynamic", "static", "threshold"]


class Kind(ABC):
    """What x is.

    An example has four forms, all of shape [N, *event]:

    - *stored*, as data sets hold it: a tensor that `check` accepts, `uint8` or `float32`;
    - *x*, as the likelihood sees it: `observe` makes it from stored examples, `float32`;
    - *features*, as the encoder sees it: `features` makes them from x, `stored_features` from
      stored examples;
    - *intensities*, as a person sees it in a figure: `intensities` makes them from x, on a scale
      from 0 (black) to 1 (white).

    A kind also knows which measure log p(x) refers to. It has no state: a likelihood names its kind
    as a class attribute. The package asks the kind for these forms and assumes nothing else about
    the values.

    Attributes:
        name: the kind's name in reports, and in `bounds.json` as `support`.
    """

    name: ClassVar[str]

    @abstractmethod
    def check(self, stored: Tensor) -> None:
        """Refuse stored examples that are not of this kind.

        Raises:
            InputError: with the values that the examples have, and the values that are expected.
        """

    @abstractmethod
    def observe(self, stored: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Return x for stored examples, with fresh noise if the kind has noise.

        Args:
            stored: stored examples, shape [N, *event].
            generator: the source of the noise, on the examples' device; by default the global
                generator.
        """

    def observe_once(self, stored: Tensor, seed: int) -> Tensor:
        """Return x for held-out examples, with noise that depends on `seed` only."""
        return self.observe(stored, torch.Generator(stored.device).manual_seed(seed))

    def binarize(self, stored: Tensor, method: Binarization, seed: int) -> Tensor:
        """Apply a method of binarisation; only binary kinds know a method other than `dynamic`.

        Args:
            stored: stored examples, shape [N, *event].
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
    def base_measure(self, stored: Tensor) -> BaseMeasure:
        """Return the measure on which log p(x) is reported, for examples stored like these."""

    def measured(self, stored: Tensor, x: Tensor) -> Tensor:
        """Return held-out examples in the form that log p(x) refers to.

        Args:
            stored: stored examples, shape [N, *event].
            x: the same examples, as the likelihood sees them.
        """
        return stored

    def features(self, x: Tensor) -> Tensor:
        """Return x as encoders see it, of the same shape."""
        return x

    def stored_features(self, stored: Tensor) -> Tensor:
        """Return the features of stored examples without noise, `float32`.

        Priors and likelihoods are initialised from these.
        """
        return self.features(stored.float())

    @abstractmethod
    def intensities(self, x: Tensor) -> Tensor:
        """Return x as figures and image statistics see it, of the same shape.

        0 is black and 1 is white. Figures cut values outside of [0, 1] off.
        """

    @abstractmethod
    def could_show(self, x: Tensor, features: Tensor) -> Tensor:
        """Return which of some examples each x can come from.

        Args:
            x: examples as the likelihood sees them, shape [N, *event].
            features: examples as `stored_features` returns them, shape [M, *event].

        Returns:
            Whether `observe` can have returned x[n] for example m, shape [N, M].
        """
