"""Fully connected networks."""

from collections.abc import Iterable, Sequence
from itertools import pairwise
from math import prod

import torch
from torch import Tensor, nn

from pyro_vae.networks.layers import activation_named, positive
from pyro_vae.networks.network import Network


class MLP(Network):
    """A multilayer perceptron, its hidden layers h -> f(W h + b), f being the activation.

    Gated, a hidden layer is h -> f(W h + b) * sigmoid(V h + c) (Dauphin et al. 2017, with the
    identity for f, as Tomczak & Welling 2018 have it in VAEs: `activation="Identity"`).

    Args:
        in_shape: the shape of one input.
        out_shape: the shape of one output.
        widths: of the hidden layers, from input to output.
        activation: the name of an activation in `torch.nn`: Tanh, ReLU, SiLU, ...
        gated: whether the hidden layers are gated; it doubles their parameters.
    """

    def __init__(
        self,
        in_shape: Sequence[int],
        out_shape: Sequence[int],
        widths: Sequence[int] = (200, 200),
        activation: str = "SiLU",
        gated: bool = False,
    ) -> None:
        super().__init__(in_shape, out_shape)
        sizes = positive("widths", [prod(in_shape), *widths])
        layers: list[nn.Module] = [nn.Flatten()]
        for narrow, wide in pairwise(sizes):
            layers += _hidden(narrow, wide, activation, gated)
        self.body = nn.Sequential(*layers, nn.Linear(sizes[-1], prod(out_shape), bias=False))


class SkipMLP(Network):
    """An `MLP` in which every layer after the first sees the input again, the last one included.

    As a decoder it keeps z in sight of all its layers, which makes it harder to learn to leave z
    alone: posterior collapse (Skip-VAE, Dieng et al. 2019).

    Args:
        in_shape: the shape of one input.
        out_shape: the shape of one output.
        widths: of the hidden layers, from input to output.
        activation: the name of an activation in `torch.nn`: Tanh, ReLU, SiLU, ...
        gated: whether the hidden layers are gated, as in `MLP`.
    """

    def __init__(
        self,
        in_shape: Sequence[int],
        out_shape: Sequence[int],
        widths: Sequence[int] = (200, 200),
        activation: str = "SiLU",
        gated: bool = False,
    ) -> None:
        super().__init__(in_shape, out_shape)
        size = prod(in_shape)
        seen = [size, *(width + size for width in positive("widths", widths))]
        layers: list[nn.Module] = [
            nn.Sequential(*_hidden(narrow, wide, activation, gated))
            for narrow, wide in zip(seen, widths, strict=False)
        ]
        self.body = _Skip([*layers, nn.Linear(seen[-1], prod(out_shape), bias=False)])


class Linear(Network):
    """A linear map: as a decoder under a Gaussian likelihood, probabilistic PCA.

    Args:
        in_shape: the shape of one input.
        out_shape: the shape of one output.
    """

    def __init__(self, in_shape: Sequence[int], out_shape: Sequence[int]) -> None:
        super().__init__(in_shape, out_shape)
        self.body = nn.Sequential(
            nn.Flatten(), nn.Linear(prod(in_shape), prod(out_shape), bias=False)
        )


class _Gated(nn.Module):
    """h -> f(W h + b) * sigmoid(V h + c)."""

    def __init__(self, narrow: int, wide: int, activation: str) -> None:
        super().__init__()
        self.linear = nn.Linear(narrow, wide)
        self.gate = nn.Linear(narrow, wide)
        self.activation = activation_named(activation)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.activation(self.linear(inputs)) * self.gate(inputs).sigmoid()


class _Skip(nn.Module):
    """Layers in turn, each after the first with the input beside what it gets."""

    def __init__(self, layers: Iterable[nn.Module]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)

    def forward(self, inputs: Tensor) -> Tensor:
        inputs = inputs.flatten(1)
        outputs = self.layers[0](inputs)
        for layer in self.layers[1:]:
            outputs = layer(torch.cat([outputs, inputs], -1))
        return outputs


def _hidden(narrow: int, wide: int, activation: str, gated: bool) -> list[nn.Module]:
    """Return the modules of a hidden layer."""
    if gated:
        return [_Gated(narrow, wide, activation)]
    return [nn.Linear(narrow, wide), activation_named(activation)]
