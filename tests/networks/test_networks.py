"""One contract for every network, and tests of the sizes of layers and images."""

import pytest
import torch

from pyro_vae import InputError
from pyro_vae.networks import (
    MLP,
    ConvDecoder,
    ConvEncoder,
    Linear,
    Network,
    ResidualDecoder,
    ResidualEncoder,
    SkipMLP,
    convolutional,
    mlp,
)


@pytest.mark.parametrize("size", [(1, 1), (1, 5), (2, 3), (7, 7), (8, 8), (13, 28), (28, 28)])
def test_convolutions_take_images_of_any_size(size: tuple[int, int]) -> None:
    for encoder in (ConvEncoder, ResidualEncoder):
        assert encoder(size, [3])(torch.randn(2, *size)).shape == (2, 3)
    for decoder in (ConvDecoder, ResidualDecoder):
        assert decoder([3], size)(torch.randn(2, 3)).shape == (2, *size)


def test_linear_is_linear() -> None:
    network = Linear([3], [2, 2])
    x, y = torch.randn(2, 5, 3)
    torch.testing.assert_close(network(x + y), network(x) + network(y) - network.bias)


def test_mlp_has_the_widths_and_the_activation() -> None:
    layers = list(MLP([4], [2], widths=[8, 6, 5], activation="ReLU").body)
    widths = [layer.out_features for layer in layers if isinstance(layer, torch.nn.Linear)]
    assert widths == [8, 6, 5, 2]
    assert sum(isinstance(layer, torch.nn.ReLU) for layer in layers) == 3


def test_a_gain_multiplies_the_first_weights() -> None:
    """With that of He et al. the second moment passes layers of ReLU; without it, it is lost."""
    x = torch.randn(200, 400)
    moments, networks = [], []
    for gain in (1.0, 6**0.5):
        torch.manual_seed(1)
        network = MLP([400], [400], widths=[400] * 4, activation="ReLU", gain=gain)
        networks.append(network)
        moments.append(network(x).square().mean().item())
    assert moments[0] < 0.02 and 0.5 < moments[1] / 2 < 2  # the last layer has no ReLU after it
    for plain, wide in zip(networks[0].body, networks[1].body, strict=True):
        if isinstance(plain, torch.nn.Linear):
            torch.testing.assert_close(wide.weight, plain.weight * 6**0.5)
    for gain in (0.0, float("nan")):
        with pytest.raises(InputError, match="gain has to be between"):
            MLP([4], [2], gain=gain)


def test_gated_layers_follow_their_formula() -> None:
    network = MLP([4], [2], widths=[3], activation="ReLU", gated=True)
    hidden, last = network.body[1], network.body[2]
    x = torch.randn(5, 4)
    w, v = hidden.linear, hidden.gate
    expected = (x @ w.weight.T + w.bias).relu() * (x @ v.weight.T + v.bias).sigmoid()
    torch.testing.assert_close(network(x), expected @ last.weight.T + network.bias)
    pure = MLP([4], [2], widths=[3], activation="Identity", gated=True)
    x_w, x_v = pure.body[1].linear(x), pure.body[1].gate(x)
    glu = torch.nn.functional.glu(torch.cat([x_w, x_v], -1))  # Dauphin et al. 2017
    torch.testing.assert_close(pure(x), pure.body[2](glu))


@pytest.mark.parametrize("network", [MLP, SkipMLP])
@pytest.mark.parametrize("gated", [False, True])
def test_dropout_and_noise_are_in_training_only(network: type[MLP], gated: bool) -> None:
    plain = network([2, 3], [1], widths=[40], gated=gated)
    dropped = network([2, 3], [1], widths=[40], gated=gated, dropout=0.25)
    noisy = network([2, 3], [1], widths=[40], gated=gated, noise=0.3)
    for other in (dropped, noisy):  # their layers have other places
        for parameter, value in zip(other.parameters(), plain.parameters(), strict=True):
            parameter.data.copy_(value)
    x = torch.randn(10_000, 2, 3)
    for other in (dropped, noisy):
        assert not torch.equal(other(x), plain(x))
        torch.testing.assert_close(other.eval()(x), plain(x))
    dropout, noise = (
        next(m for m in other.train().modules() if isinstance(m, kind))
        for other, kind in ((dropped, torch.nn.Dropout), (noisy, mlp.InputNoise))
    )
    units = dropout(torch.ones(10_000))
    assert units.unique().tolist() == pytest.approx([0.0, 1 / 0.75])
    assert units.eq(0).double().mean().item() == pytest.approx(0.25, abs=4 * (0.19 / 1e4) ** 0.5)
    added = (noise(x) - x).flatten()
    assert added.std().item() == pytest.approx(0.3, rel=4 * (2 * len(added)) ** -0.5)
    assert abs(added.mean().item()) < 4 * 0.3 * len(added) ** -0.5
    seen: list[torch.Tensor] = []  # the first layer sees inputs with noise
    first = next(m for m in noisy.modules() if isinstance(m, torch.nn.Linear))
    first.register_forward_hook(lambda module, inputs, outputs: seen.append(inputs[0]))
    noisy(x)
    assert not torch.equal(seen[0], x.flatten(1))


@pytest.mark.parametrize("gated", [False, True])
def test_skip_mlp_sees_its_input_in_every_layer(gated: bool) -> None:
    """Each layer depends on the input even if all layers before it are constant."""
    network = SkipMLP([2, 2], [3], widths=[7, 6, 5], gated=gated)
    layers = network.body.layers
    sizes = [
        next(m for m in layer.modules() if isinstance(m, torch.nn.Linear)).weight.shape
        for layer in layers
    ]
    assert sizes == [(7, 4), (6, 7 + 4), (5, 6 + 4), (3, 5 + 4)]
    z = torch.randn(2, 2)
    for layer in layers[:-1]:  # set to zero one by one: the layers after it still receive z
        for parameter in layer.parameters():
            parameter.data.zero_()
        slope = torch.autograd.functional.jacobian(network, z)
        assert torch.linalg.matrix_rank(slope.flatten(1)) == 3
    direct = layers[-1].weight[:, 5:]  # all hidden layers are zero: only a linear map of z remains
    torch.testing.assert_close(network(z), direct @ z.flatten() + network.bias)
    plain = MLP([2, 2], [3], widths=[7, 6, 5], gated=gated)
    for parameter in plain.body[1].parameters():
        parameter.data.zero_()
    assert torch.autograd.functional.jacobian(plain, z).eq(0).all()


@pytest.mark.parametrize(
    ("residual", "plain"),
    [
        (ResidualEncoder([3, 9, 6], [2], blocks=3), ConvEncoder([3, 9, 6], [2])),
        (ResidualDecoder([2], [3, 9, 6], blocks=3), ConvDecoder([2], [3, 9, 6])),
    ],
)
def test_residual_networks_add_to_convolutions(residual: Network, plain: Network) -> None:
    """A residual network whose branches are zero is the plain network."""
    blocks = [m for m in residual.modules() if isinstance(m, convolutional._Residual)]
    assert len(blocks) == 2 * 3
    h = torch.randn(2, blocks[0].branch[1].in_channels, 4, 4)
    hidden = blocks[0].branch[1](torch.nn.functional.silu(h))
    expected = h + blocks[0].branch[3](torch.nn.functional.silu(hidden))
    torch.testing.assert_close(blocks[0](h), expected)
    for block in blocks:
        block.branch[3].weight.data.zero_()
        block.branch[3].bias.data.zero_()
    others = [m for m in residual.body if not isinstance(m, convolutional._Residual)]
    for plain_layer, layer in zip(plain.body, others, strict=True):
        assert type(plain_layer) is type(layer)
        plain_layer.load_state_dict(layer.state_dict())
    inputs = torch.randn(5, *plain.in_shape)
    torch.testing.assert_close(residual(inputs), plain(inputs))


def test_state_dicts_have_the_keys_of_old_checkpoints() -> None:
    assert set(MLP([4], [2], widths=[3]).state_dict()) == {
        "bias",
        "body.1.weight",
        "body.1.bias",
        "body.3.weight",
    }
    assert set(ConvEncoder([4, 4], [2], channels=[3]).state_dict()) == {
        "bias",
        "body.1.weight",
        "body.1.bias",
        "body.4.weight",
    }
    assert set(ConvDecoder([2], [4, 4], channels=[3]).state_dict()) == {
        "bias",
        "body.1.weight",
        "body.1.bias",
        "body.4.weight",
        "body.4.bias",
    }


def test_refusals() -> None:
    with pytest.raises(InputError, match="not an activation"):
        MLP([4], [2], activation="Linear")
    with pytest.raises(InputError, match="not an activation"):
        MLP([4], [2], activation="nothing")
    with pytest.raises(InputError, match="positive"):
        MLP([4], [2], widths=[3, 0])
    with pytest.raises(InputError, match="dropout has to be between 0 and 1"):
        MLP([4], [2], dropout=1.5)
    with pytest.raises(InputError, match="noise has to be between 0 and"):
        SkipMLP([4], [2], noise=-1.0)
    with pytest.raises(InputError, match="positive"):
        ConvEncoder([4, 4], [2], channels=[-1])
    with pytest.raises(InputError, match="widths have to be positive"):
        SkipMLP([4], [2], widths=[0])
    for encoder in (ConvEncoder, ResidualEncoder):
        with pytest.raises(InputError, match=f"{encoder.__name__} .* take an MLP for vectors"):
            encoder([4], [2])
    for decoder in (ConvDecoder, ResidualDecoder):
        with pytest.raises(InputError, match=f"{decoder.__name__} .* take an MLP for vectors"):
            decoder([2], [4])
        with pytest.raises(InputError, match=f"a {decoder.__name__} needs the channels"):
            decoder([2], [4, 4], channels=[])
    for residual in (ResidualEncoder, ResidualDecoder):
        with pytest.raises(InputError, match="blocks have to be positive, but 0 was given"):
            residual([4, 4], [4, 4], blocks=0)
