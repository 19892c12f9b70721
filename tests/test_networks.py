"""One contract for every network, and the sizes that are easily got wrong."""

from collections.abc import Callable

import pytest
import torch

from pyro_vae import InputError, networks
from pyro_vae.networks import MLP, ConvDecoder, ConvEncoder, Linear, Network

CASES: dict[str, Callable[[], Network]] = {
    "MLP": lambda: MLP([5, 4], [2, 3], widths=[7, 6], activation="SiLU"),
    "MLP without hidden layers": lambda: MLP([5], [3], widths=[]),
    "Linear": lambda: Linear([5, 4], [2, 3]),
    "ConvEncoder": lambda: ConvEncoder([9, 6], [2, 3], channels=[3, 4, 5]),
    "ConvEncoder in colour": lambda: ConvEncoder([3, 9, 6], [2, 3]),
    "ConvDecoder": lambda: ConvDecoder([4], [9, 6], channels=[5, 4, 3]),
    "ConvDecoder in colour": lambda: ConvDecoder([4], [3, 9, 6]),
}


@pytest.mark.parametrize("make", CASES.values(), ids=CASES.keys())
def test_contract(make: Callable[[], Network]) -> None:
    network = make()
    inputs = torch.randn(2, 3, *network.in_shape)
    outputs = network(inputs)
    assert outputs.shape == (2, 3, *network.out_shape)
    one_by_one = torch.stack([network(x) for x in inputs.flatten(0, 1)])
    torch.testing.assert_close(outputs.flatten(0, 1), one_by_one, atol=1e-5, rtol=1e-5)
    assert network(inputs[0, 0]).shape == network.out_shape
    outputs.square().sum().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name
    shifted = make()
    shifted.load_state_dict(network.state_dict())
    shifted.bias.data += 1
    torch.testing.assert_close(shifted(inputs), outputs + 1)


def test_every_network_is_under_contract() -> None:
    public = {
        cls.__name__ for cls in Network.__subclasses__() if cls.__module__ == networks.__name__
    }
    assert public == {name.split()[0] for name in CASES}


@pytest.mark.parametrize("size", [(1, 1), (1, 5), (2, 3), (7, 7), (8, 8), (13, 28), (28, 28)])
def test_convolutions_take_images_of_any_size(size: tuple[int, int]) -> None:
    assert ConvEncoder(size, [3])(torch.randn(2, *size)).shape == (2, 3)
    assert ConvDecoder([3], size)(torch.randn(2, 3)).shape == (2, *size)


def test_linear_is_linear() -> None:
    network = Linear([3], [2, 2])
    x, y = torch.randn(2, 5, 3)
    torch.testing.assert_close(network(x + y), network(x) + network(y) - network.bias)


def test_mlp_has_the_widths_and_the_activation() -> None:
    layers = list(MLP([4], [2], widths=[8, 6, 5], activation="ReLU").body)
    widths = [layer.out_features for layer in layers if isinstance(layer, torch.nn.Linear)]
    assert widths == [8, 6, 5, 2]
    assert sum(isinstance(layer, torch.nn.ReLU) for layer in layers) == 3


def test_what_is_refused() -> None:
    with pytest.raises(InputError, match="no activation"):
        MLP([4], [2], activation="Linear")
    with pytest.raises(InputError, match="no activation"):
        MLP([4], [2], activation="nothing")
    with pytest.raises(InputError, match="positive"):
        MLP([4], [2], widths=[3, 0])
    with pytest.raises(InputError, match="positive"):
        ConvEncoder([4, 4], [2], channels=[-1])
    for make in (lambda: ConvEncoder([4], [2]), lambda: ConvDecoder([2], [4])):
        with pytest.raises(InputError, match="take an MLP for vectors"):
            make()
