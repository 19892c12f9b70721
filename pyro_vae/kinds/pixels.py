"""What all kinds of pixels have in common."""

from collections.abc import Sequence
from typing import Self

from torch import Tensor

from pyro_vae.errors import InputError
from pyro_vae.kinds.kind import Kind, Stored
from pyro_vae.kinds.statistics import check_range


class Pixels(Kind):
    """Pixels, stored as levels 0, 1, .., levels - 1, or as floats in [0, 1].

    Their features are intensities in [0, 1], for encoders and figures alike.

    Args:
        shape: the shape of one image, [H, W] or [C, H, W]; or of a vector, [D].
        names: the names of the columns of vectors.
        levels: the number of stored levels, from 2 to 65,536; None for floats in [0, 1].

    Raises:
        InputError: if there are fewer or more levels.
    """

    def __init__(
        self,
        shape: Sequence[int] = (),
        names: Sequence[str] | None = None,
        levels: int | None = 256,
    ) -> None:
        super().__init__(shape, names)
        if levels is not None and not 2 <= levels <= 2**16:
            raise InputError(
                f"the number of levels has to be between 2 and 65,536, but is {levels}",
                "levels",
            )
        self.levels = levels

    @classmethod
    def seeing(cls, data: Kind) -> Self | None:
        """Return this kind of pixels for pixels of another kind."""
        if not isinstance(data, Pixels):
            return None
        return data if isinstance(data, cls) else cls(data.shape, data.names, data.levels)

    @property
    def is_picture(self) -> bool:
        """Whether the columns have no names: vectors of pixels are pictures with one row."""
        return self.names is None

    @property
    def largest(self) -> int:
        """The stored value of a white pixel."""
        return 1 if self.levels is None else self.levels - 1

    def check(self, stored: Stored) -> None:
        """Refuse levels that are too large or not whole, and floats outside of [0, 1].

        Raises:
            InputError: with the first value that does not fit.
        """
        check_range(stored, self, 0, self.largest, whole=self.levels is not None)

    def stored_features(self, stored: Tensor) -> Tensor:
        """Return intensities in [0, 1]: levels are divided by the largest, floats unchanged."""
        return stored.float() if self.levels is None else stored.float() / self.largest

    def intensities(self, x: Tensor) -> Tensor:
        """Return the features, which are intensities."""
        return self.features(x)
