"""Networks for encoders and decoders: they map tensors [..., *in_shape] to [..., *out_shape].

`MLP`, `SkipMLP` and `Linear` flatten their inputs, which can have any shape. `ConvEncoder` and
`ResidualEncoder` take images [H, W] or [C, H, W] of any size; `ConvDecoder` and `ResidualDecoder`
make such images, where C is the number of colours, or of parameters times colours. `GatedPixelCNN`
and `LocalFeatures` are no such networks: they are the parts of autoregressive likelihoods that read
pixels.

To add one, subclass `Network` in a file of this folder: the constructor takes `in_shape` and
`out_shape`, then the options of the command line, and sets `body`. Name the class in this file, and
add a case to `tests/test_contracts.py`. The command line then takes it by its name.
"""

from pyro_vae.networks.convolutional import (
    ConvDecoder,
    ConvEncoder,
    ResidualDecoder,
    ResidualEncoder,
)
from pyro_vae.networks.mlp import MLP, Linear, SkipMLP
from pyro_vae.networks.network import Network
from pyro_vae.networks.pixelcnn import GatedPixelCNN, LocalFeatures

__all__ = [
    "MLP",
    "ConvDecoder",
    "ConvEncoder",
    "GatedPixelCNN",
    "Linear",
    "LocalFeatures",
    "Network",
    "ResidualDecoder",
    "ResidualEncoder",
    "SkipMLP",
]
