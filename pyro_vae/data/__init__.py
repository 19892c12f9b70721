"""Named data sets and users' own arrays, as three tensors: train, validation, test.

An image is [H, W], or [C, H, W] in colour. Images are kept as they are stored, `uint8` in 0..255,
or, for users' float arrays, `float32` in [0, 1]. How a likelihood gets to see them is the business
of `observations`.
"""

from pyro_vae.data.dataset import Dataset, load

__all__ = ["Dataset", "load"]
