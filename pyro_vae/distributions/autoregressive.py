"""Pixels one after the other: p(x) = prod_i p(x_i | x_<i, context).

The order is the raster's: row by row, within a row from left to right, within a pixel channel by
channel (red, green, blue). The distribution takes any network that keeps to it.
"""

from collections.abc import Callable, Sequence
from itertools import product
from typing import Any

import pyro.distributions as dist
import torch
from pyro.distributions import TorchDistribution
from torch import Size, Tensor
from torch.distributions import constraints

from pyro_vae.errors import InputError


class Autoregressive(TorchDistribution):
    """An image drawn pixel by pixel: p(x) = prod_i p(x_i | x_<i, context).

    Scoring runs the network once. Sampling runs it once for every (sub)pixel, over the rows down to
    that pixel's, and has no gradient.

    Args:
        network: maps images [N, *event_shape] and contexts [N, context_channels, H, W] to the
            parameters of the pixels, [N, outputs, *event_shape], each a function of the (sub)pixels
            before it in raster order alone. It is also called with the bottom rows cut off both,
            and has to give its outputs with those rows cut off: `GatedPixelCNN` does.
        pixels: maps parameters [N, outputs, *event_shape], of any height and width, to a
            distribution of batch shape [N, *event_shape] and event shape [].
        context: shape [*batch_shape, context_channels, H, W].
        event_shape: of an image: [H, W] or [C, H, W].
        scale: what values are divided by before the network sees them: 1 for binary pixels, 255
            for levels.
        support: of one pixel.
        validate_args: whether to check arguments and values, as in torch.
    """

    arg_constraints = {  # noqa: RUF012 - as torch has it
        "context": constraints.independent(constraints.real, 3)
    }
    has_rsample = False

    def __init__(
        self,
        network: Callable[[Tensor, Tensor], Tensor],
        pixels: Callable[[Tensor], dist.Distribution],
        context: Tensor,
        event_shape: Sequence[int],
        scale: float = 1.0,
        *,
        support: constraints.Constraint,
        validate_args: bool | None = None,
    ) -> None:
        if context.dim() < 3 or context.shape[-2:] != Size(event_shape[-2:]):
            raise InputError(
                f"the context of images {list(event_shape)} has to be of their height and width, "
                f"and {list(context.shape)} is not"
            )
        self.network = network
        self.pixels = pixels
        self.context = context
        self.scale = scale
        self.pixel_support = support
        super().__init__(context.shape[:-3], Size(event_shape), validate_args=validate_args)

    @constraints.dependent_property
    def support(self) -> constraints.Constraint:
        """The support of an image."""
        return constraints.independent(self.pixel_support, len(self.event_shape))

    def expand(self, batch_shape: Size, _instance: Any = None) -> "Autoregressive":
        """Return the distribution, expanded to a batch shape."""
        new = self._get_checked_instance(Autoregressive, _instance)
        batch_shape = Size(batch_shape)
        new.network, new.pixels, new.scale = self.network, self.pixels, self.scale
        new.pixel_support = self.pixel_support
        new.context = self.context.expand(batch_shape + self.context.shape[-3:])
        super(Autoregressive, new).__init__(batch_shape, self.event_shape, validate_args=False)
        new._validate_args = self._validate_args
        return new

    def log_prob(self, value: Tensor) -> Tensor:
        """Return nats, of the broadcast shape of value's leading dimensions and the batch."""
        if self._validate_args:
            self._validate_sample(value)
        leading = value.shape[: value.dim() - len(self.event_shape)]
        leading = torch.broadcast_shapes(leading, self.batch_shape)
        # Convolutions take one leading dimension.
        value = value.expand(leading + self.event_shape).reshape(-1, *self.event_shape)
        parameters = self.network(self._scaled(value), self._contexts(leading))
        return self.pixels(parameters).log_prob(value).flatten(1).sum(1).reshape(leading)

    @torch.no_grad()
    def sample(self, sample_shape: Size = Size()) -> Tensor:  # noqa: B008 - as torch has it
        """Draw the (sub)pixels in their order, of shape [*sample_shape, *batch, *event]."""
        leading = Size(sample_shape) + self.batch_shape
        context = self._contexts(leading)
        value = context.new_zeros((len(context), *self.event_shape))
        *colours, height, width = self.event_shape
        for row, column in product(range(height), range(width)):
            here = (..., slice(row, row + 1), slice(column, column + 1))
            for colour in range(*(colours or [1])):
                seen, told = value[..., : row + 1, :], context[..., : row + 1, :]
                parameters = self.network(self._scaled(seen), told)[here]
                drawn = self.pixels(parameters).sample()
                subpixel = value[:, colour : colour + 1] if colours else value
                subpixel[here] = drawn[:, colour : colour + 1] if colours else drawn
        return value.reshape(leading + self.event_shape)

    def _scaled(self, value: Tensor) -> Tensor:
        return (value / self.scale).to(self.context)

    def _contexts(self, leading: Size) -> Tensor:
        shape = self.context.shape[-3:]
        return self.context.expand(leading + shape).reshape(-1, *shape)
