"""Images whose pixels are drawn one after another: p(x) = prod_i p(x_i | x_<i, context).

The order is raster order: row by row, within a row from left to right, and within a pixel channel
by channel (red, green, blue). Any network whose outputs respect this order can be used.
"""

from collections.abc import Callable, Sequence
from itertools import product

import pyro.distributions as dist
import torch
from torch import Size, Tensor
from torch.distributions import constraints

from pyro_vae.distributions.expandable import Expandable
from pyro_vae.errors import InputError


class Autoregressive(Expandable):
    """An image drawn pixel by pixel: p(x) = prod_i p(x_i | x_<i, context).

    `log_prob` runs the network once. `sample` runs it once for every (sub)pixel, on the rows from
    the top down to that pixel's row, and has no gradient.

    Args:
        network: a function that maps images [N, *event_shape] and contexts
            [N, context_channels, H, W] to the parameters of the pixels,
            [N, outputs, *event_shape]. The parameters of a (sub)pixel depend only on the
            (sub)pixels before it in raster order. `sample` calls the network on images and contexts
            without their bottom rows; its outputs must then be the same, without those rows.
            `GatedPixelCNN` does all this. With `combine` it is called on images alone.
        pixels: a function that maps parameters [N, outputs, *event_shape], of any height and
            width, to a distribution of batch shape [N, *event_shape] and event shape [].
        context: a tensor of shape [*batch_shape, context_channels, H, W].
        event_shape: the shape of an image: [H, W] or [C, H, W].
        scale: the number that pixel values are divided by before the network receives them: 1 for
            binary pixels, 255 for levels.
        support: the support of one pixel.
        combine: a function of the network's outputs and the contexts, with any leading dimensions
            that broadcast; it returns the parameters of the pixels. `log_prob` then runs the
            network once for all contexts of an image.
        validate_args: whether to check arguments and values, as in torch.
    """

    arg_constraints = {  # noqa: RUF012 - torch's name and type
        "context": constraints.independent(constraints.real, 3)
    }
    has_rsample = False
    batched = {"context": 3}  # noqa: RUF012 - a class variable in the base class
    shared = ("network", "pixels", "scale", "pixel_support", "combine")

    def __init__(
        self,
        network: Callable[..., Tensor],
        pixels: Callable[[Tensor], dist.Distribution],
        context: Tensor,
        event_shape: Sequence[int],
        scale: float = 1.0,
        *,
        support: constraints.Constraint,
        combine: Callable[[Tensor, Tensor], Tensor] | None = None,
        validate_args: bool | None = None,
    ) -> None:
        if context.dim() < 3 or context.shape[-2:] != Size(event_shape[-2:]):
            raise InputError(
                f"a context for images of shape {list(event_shape)} must have their height and "
                f"width, and shape [..., channels, H, W], not {list(context.shape)}",
                "context",
            )
        self.network = network
        self.pixels = pixels
        self.context = context
        self.scale = scale
        self.pixel_support = support
        self.combine = combine
        super().__init__(context.shape[:-3], Size(event_shape), validate_args=validate_args)

    @constraints.dependent_property
    def support(self) -> constraints.Constraint:
        """The support of an image."""
        return constraints.independent(self.pixel_support, len(self.event_shape))

    def log_prob(self, value: Tensor) -> Tensor:
        """Return log p(value) in nats.

        Its shape is that of the batch, broadcast with the dimensions of `value` before the event.
        """
        if self._validate_args:
            self._validate_sample(value)
        own = value.shape[: value.dim() - len(self.event_shape)]
        leading = torch.broadcast_shapes(own, self.batch_shape)
        # Convolutions accept only one dimension before the image.
        images = value.reshape(-1, *self.event_shape)
        value = value.expand(leading + self.event_shape).reshape(-1, *self.event_shape)
        if self.combine is None:
            parameters = self._parameters(self._scaled(value), self._contexts(leading))
        else:
            features = self.network(self._scaled(images)).unflatten(0, own or (1,))
            parameters = self.combine(features, self.context)
            parameters = parameters.reshape(-1, *parameters.shape[-len(self.event_shape) - 1 :])
        return self.pixels(parameters).log_prob(value).flatten(1).sum(1).reshape(leading)

    @torch.no_grad()
    def sample(self, sample_shape: Size = Size()) -> Tensor:  # noqa: B008 - torch's signature
        """Draw the (sub)pixels in raster order; the shape is [*sample_shape, *batch, *event]."""
        leading = Size(sample_shape) + self.batch_shape
        context = self._contexts(leading)
        value = context.new_zeros((len(context), *self.event_shape))
        *channels, height, width = self.event_shape
        for row, column in product(range(height), range(width)):
            pixel = (..., slice(row, row + 1), slice(column, column + 1))
            for channel in range(*(channels or [1])):
                image_rows, context_rows = value[..., : row + 1, :], context[..., : row + 1, :]
                parameters = self._parameters(self._scaled(image_rows), context_rows)
                drawn = self.pixels(parameters[pixel]).sample()
                if channels:
                    value[:, channel : channel + 1][pixel] = drawn[:, channel : channel + 1]
                else:
                    value[pixel] = drawn
        return value.reshape(leading + self.event_shape)

    def _parameters(self, images: Tensor, contexts: Tensor) -> Tensor:
        """Return the parameters of the pixels of images, each with a context of its own."""
        if self.combine is None:
            return self.network(images, contexts)
        return self.combine(self.network(images), contexts)

    def _scaled(self, value: Tensor) -> Tensor:
        return (value / self.scale).to(self.context)

    def _contexts(self, leading: Size) -> Tensor:
        """Return one context for each image, with all leading dimensions made into one."""
        shape = self.context.shape[-3:]
        return self.context.expand(leading + shape).reshape(-1, *shape)
