"""The base of all kinds of data."""

from abc import ABC, abstractmethod
from typing import ClassVar, Literal

import torch
from torch import Tensor

from pyro_vae.errors import InputError
from pyro_vae.kinds.base_measure import BaseMeasure

Binarization = Literal["dynamic", "static", "threshold"]


class Kind(ABC):
    """What x is.

    A kind knows how stored examples are shown to a likelihood, how x is shown to an encoder, and on
    what measure log p(x) is. It has no state: a likelihood names its kind as a class attribute.

    Stored examples are `uint8` levels in 0..255 or `float32`, shape [N, *event]. x is what the
    likelihood sees, `float32`, of the same shape.

    Attributes:
        name: in reports, and in `bounds.json` as `support`.
    """

    name: ClassVar[str]

    @abstractmethod
    def check(self, stored: Tensor) -> None:
        """Refuse stored examples that are not of this kind.

        Raises:
            InputError: with what they hold, and what is expected.
        """

    @abstractmethod
    def observe(self, stored: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Return x for stored examples, with fresh noise if the kind has noise.

        Args:
            stored: shape [N, *event].
            generator: of the noise, on the examples' device; by default the global generator.
        """

    def observe_once(self, stored: Tensor, seed: int) -> Tensor:
        """Return x with noise that depends on `seed` only: for held-out data."""
        return self.observe(stored, torch.Generator(stored.device).manual_seed(seed))

    def binarize(self, stored: Tensor, method: Binarization, seed: int) -> Tensor:
        """Fix how stored examples are binarised; only binary kinds know another than `dynamic`.

        Args:
            stored: shape [N, *event].
            method: `dynamic` returns the examples unchanged, so that `observe` draws pixels each
                time; `static` draws them once; `threshold` compares them with one half.
            seed: of the static draw.

        Returns:
            Stored examples of the same type.

        Raises:
            InputError: if the kind does not know the method.
        """
        if method != "dynamic":
            raise InputError(
                f"binarization '{method}' is for binary likelihoods, and this likelihood's data "
                f"are of the kind {self.name}: leave it out"
            )
        return stored

    @abstractmethod
    def base_measure(self, stored: Tensor) -> BaseMeasure:
        """Return the measure on which log p(x) can be compared, for examples stored like these."""

    def measured(self, stored: Tensor, x: Tensor) -> Tensor:
        """Return held-out examples in the form that log p(x) refers to.

        Args:
            stored: shape [N, *event].
            x: the same examples, as the likelihood sees them.
        """
        return stored

    def features(self, x: Tensor) -> Tensor:
        """Return x as encoders and figures see it: for pixels, intensities in [0, 1]."""
        return x

    def stored_features(self, stored: Tensor) -> Tensor:
        """Return stored examples as encoders would see them without noise, `float32`."""
        return stored.float() / 255 if stored.dtype == torch.uint8 else stored

    @abstractmethod
    def could_show(self, x: Tensor, features: Tensor) -> Tensor:
        """Return which of some examples each x can have been drawn from.

        Args:
            x: shape [N, *event].
            features: of the examples, as from `stored_features`, shape [M, *event].

        Returns:
            Whether `observe` can have shown x[n] for example m, shape [N, M].
        """


def check_pixels(stored: Tensor) -> None:
    """Refuse floats that are not intensities in [0, 1].

    Raises:
        InputError: with their range.
    """
    if stored.dtype != torch.uint8 and not 0 <= stored.min() <= stored.max() <= 1:
        raise InputError(
            f"the data have values from {stored.min():g} to {stored.max():g}: scale floats to "
            "[0, 1], or save levels 0..255 as uint8"
        )
