"""Fully connected networks."""

import math
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from itertools import pairwise
from math import prod

import torch
from torch import Tensor, nn

from pyro_vae.errors import check_range
from pyro_vae.networks.activations import activation_named
from pyro_vae.networks.network import Network, check_positive

Hidden = Callable[[int, int], list[nn.Module]]  # the modules of a hidden layer, from its widths


class MLP(Network):
    """A multilayer perceptron with hidden layers h -> f(W h + b), where f is the activation.

    With `gated`, a hidden layer is h -> f(W h + b) * sigmoid(V h + c) (Dauphin et al. 2017 with the
    identity as f; Tomczak & Welling 2018 use it in VAEs). For their form set `activation` to
    `Identity`.

    Args:
        widths: the widths of the hidden layers, from input to output.
        activation: the name of an activation in `torch.nn`: Tanh, ReLU, SiLU, ...
        gated: whether the hidden layers are gated, which doubles their parameters.
        dropout: the share of the hidden units that are set to zero in training.
        noise: the standard deviation of normal noise that is added to the inputs in training.
        gain: a factor of the first weights of all layers, which otherwise are PyTorch's, uniform
            within 1 / sqrt(inputs). With 2.45 they are those of He et al. (2015), and signals keep
            their size through layers of ReLU or SiLU. Codes in layers need that.

    Raises:
        InputError: if a width is not positive, `dropout` is not from 0 to 1, or `noise` is
            negative, or `gain` is not positive, or there is no such activation.
    """

    def __init__(
        self,
        in_shape: Sequence[int],
        out_shape: Sequence[int],
        widths: Sequence[int] = (200, 200),
        activation: str = "SiLU",
        gated: bool = False,
        dropout: float = 0.0,
        noise: float = 0.0,
        gain: float = 1.0,
    ) -> None:
        super().__init__(in_shape, out_shape)
        check_positive("widths", [prod(in_shape), *widths])
        check_range("dropout", dropout, 0, 1)
        check_range("noise", noise, 0, math.inf)
        check_range("gain", gain, 1e-3, 1e3)
        body = self._make_body(widths, partial(_hidden, activation, gated, dropout))
        with torch.no_grad():
            for layer in body.modules():
                if isinstance(layer, nn.Linear):
                    layer.weight *= gain
        self.body = nn.Sequential(InputNoise(noise), body) if noise else body

    def _make_body(self, widths: Sequence[int], hidden: Hidden) -> nn.Module:
        sizes = [self.in_shape.numel(), *widths]
        layers: list[nn.Module] = [nn.Flatten()]
        for inputs, outputs in pairwise(sizes):
            layers += hidden(inputs, outputs)
        last = nn.Linear(sizes[-1], self.out_shape.numel(), bias=False)
        return nn.Sequential(*layers, last)


class SkipMLP(MLP):
    """An `MLP` in which every layer after the first, including the last, also receives the input.

    As a decoder it gives z to all its layers. This makes it harder for training to ignore z, which
    is called posterior collapse (Skip-VAE, Dieng et al. 2019).
    """

    def _make_body(self, widths: Sequence[int], hidden: Hidden) -> nn.Module:
        size = self.in_shape.numel()
        sizes = [size, *(width + size for width in widths)]
        layers: list[nn.Module] = [
            nn.Sequential(*hidden(inputs, outputs))
            for inputs, outputs in zip(sizes, widths, strict=False)
        ]
        return _Skip([*layers, nn.Linear(sizes[-1], self.out_shape.numel(), bias=False)])


class Linear(Network):
    """A linear map; as the decoder of a Gaussian likelihood it gives probabilistic PCA."""

    def __init__(self, in_shape: Sequence[int], out_shape: Sequence[int]) -> None:
        super().__init__(in_shape, out_shape)
        self.body = nn.Sequential(
            nn.Flatten(), nn.Linear(prod(in_shape), prod(out_shape), bias=False)
        )


class InputNoise(nn.Module):
    """Adds normal noise in training, and does nothing in evaluation.

    Args:
        scale: the standard deviation of the noise.
    """

    def __init__(self, scale: float) -> None:
        super().__init__()
        self.scale = scale

    def forward(self, inputs: Tensor) -> Tensor:
        """Return inputs with noise."""
        return inputs + self.scale * torch.randn_like(inputs) if self.training else inputs


class _Gated(nn.Module):
    """h -> f(W h + b) * sigmoid(V h + c)."""

    def __init__(self, inputs: int, outputs: int, activation: str) -> None:
        super().__init__()
        self.linear = nn.Linear(inputs, outputs)
        self.gate = nn.Linear(inputs, outputs)
        self.activation = activation_named(activation)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.activation(self.linear(inputs)) * self.gate(inputs).sigmoid()


class _Skip(nn.Module):
    """A sequence of layers; each after the first receives the input beside the last outputs."""

    def __init__(self, layers: Iterable[nn.Module]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)

    def forward(self, inputs: Tensor) -> Tensor:
        inputs = inputs.flatten(1)
        outputs = self.layers[0](inputs)
        for layer in self.layers[1:]:
            outputs = layer(torch.cat([outputs, inputs], -1))
        return outputs


def _hidden(
    activation: str, gated: bool, dropout: float, inputs: int, outputs: int
) -> list[nn.Module]:
    """Return the modules of a hidden layer."""
    dropped = [nn.Dropout(dropout)] if dropout else []
    if gated:
        return [_Gated(inputs, outputs, activation), *dropped]
    return [nn.Linear(inputs, outputs), activation_named(activation), *dropped]
