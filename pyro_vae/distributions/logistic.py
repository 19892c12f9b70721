"""The logistic distribution, with finite draws."""

from typing import Any

import pyro.distributions as dist
import torch
from torch import Size, Tensor


class Logistic(dist.Logistic):
    """Pyro's logistic distribution, which in single precision draws -inf once in 2^24 times."""

    def rsample(self, sample_shape: Any = Size()) -> Tensor:  # noqa: B008 - torch's signature
        """Draw x, shape [*sample_shape, *batch]."""
        shape = self._extended_shape(sample_shape)
        uniform = torch.rand(shape, dtype=self.loc.dtype, device=self.loc.device)
        # A uniform of zero stands for an interval of that length.
        smallest = torch.finfo(uniform.dtype).eps / 4
        noise = uniform.clamp(min=smallest).log() - torch.log1p(-uniform)
        return self.loc + self.scale * noise
