"""Encoder and decoder bodies: tensors in, tensors out, with any leading batch dimensions.

`MLP`, `SkipMLP` and `Linear` take tensors of any shape for vectors. `ConvEncoder` and
`ResidualEncoder` take images [H, W] or [C, H, W] of any size; `ConvDecoder` and `ResidualDecoder`
make them, C being the number of colours, or of parameters times colours.

A network maps [..., *in_shape] to [..., *out_shape]. To add one, subclass `Network`, give it a
`body` that maps [batch, *in_shape] to [batch, *out_shape], and name it on the command line.
"""

from pyro_vae.networks.convolutional import (
    ConvDecoder,
    ConvEncoder,
    ResidualDecoder,
    ResidualEncoder,
)
from pyro_vae.networks.mlp import MLP, Linear, SkipMLP
from pyro_vae.networks.network import Network
from pyro_vae.networks.pixelcnn import GatedPixelCNN

__all__ = [
    "MLP",
    "ConvDecoder",
    "ConvEncoder",
    "GatedPixelCNN",
    "Linear",
    "Network",
    "ResidualDecoder",
    "ResidualEncoder",
    "SkipMLP",
]
