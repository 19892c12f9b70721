"""The contract of every network."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from pyro_vae.networks import Network
from pyro_vae.testing.derivatives import check_gradients, check_independence
from pyro_vae.testing.subject import Subject, isolated


def check_network(
    make: Callable[[Sequence[int], Sequence[int]], Network],
    *,
    in_shape: Sequence[int] = (5, 4),
    out_shape: Sequence[int] = (2, 3),
    seed: int = 0,
) -> None:
    """Check that a network keeps the contract of `pyro_vae.networks.Network`.

    It maps [..., *in_shape] to [..., *out_shape], with any leading dimensions; the output for an
    example does not depend on the rest of its batch; `bias` adds to the outputs, one number for
    each; gradients reach every parameter and agree with finite differences; and a state that is
    loaded into another network gives the same outputs.

    Args:
        make: the class, or a callable that takes the shapes of an input and of an output.
        in_shape: the shape of one input.
        out_shape: the shape of one output.
        seed: the seed of all noise.

    Raises:
        AssertionError: with a sentence on what is wrong.

    Examples:
        >>> from functools import partial
        >>> from pyro_vae.networks import MLP, ConvEncoder
        >>> from pyro_vae.testing import check_network
        >>> check_network(partial(MLP, widths=[7]))
        >>> check_network(ConvEncoder, in_shape=[9, 6])
        >>> check_network(ConvEncoder, in_shape=[9])  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        AssertionError: ConvEncoder: building the network raised InputError: ConvEncoder needs ...
    """
    subject = Subject(make)
    with isolated(seed):
        with subject.during("building the network"):
            network = make(in_shape, out_shape)
            other = make(in_shape, out_shape)
        subject.require(
            isinstance(network, Network), "it is not a subclass of pyro_vae.networks.Network"
        )
        inputs = torch.randn(2, 3, *in_shape)
        with subject.during("calling the network"):
            for training in (True, False):
                _check_outputs(subject, network.train(training), inputs)
            double = network.double().train()
            x = torch.randn(3, *in_shape).double()
            check_gradients(subject, double, lambda: _sum_of_sines(double, x), "the output")
            network.float().eval()
        with subject.during("load_state_dict"):
            other.eval().load_state_dict(network.state_dict())
            subject.require(
                torch.allclose(other(inputs), network(inputs), atol=1e-6),
                "another network with the same state_dict has other outputs: something that the "
                "outputs depend on is not saved; make it a parameter or a buffer",
            )


def _check_outputs(subject: Subject, network: Network, inputs: Tensor) -> None:
    for x in (inputs, inputs[0], inputs[0, 0]):
        leading = x.shape[: x.dim() - len(network.in_shape)]
        shape = [*leading, *network.out_shape]
        outputs = _same_noise(network, x)
        subject.require(
            list(outputs.shape) == shape,
            f"for inputs of shape {list(x.shape)}, outputs have shape {list(outputs.shape)}, and "
            f"not {shape}",
        )
        subject.require(outputs.isfinite().all(), "outputs are not all finite numbers")
    bias = getattr(network, "bias", None)
    subject.require(
        isinstance(bias, Tensor) and bias.shape == network.out_shape,
        f"`bias` is not a parameter of shape {list(network.out_shape)}",
    )
    assert isinstance(bias, Tensor)
    flat = inputs.flatten(0, 1)
    check_independence(subject, network, flat, "the output")
    before = _same_noise(network, inputs)
    bias.data += 1
    after = _same_noise(network, inputs)
    bias.data -= 1
    subject.require(
        torch.allclose(after, before + 1, atol=1e-5),
        "adding 1 to `bias` does not add 1 to every output",
    )


def _same_noise(network: Network, x: Tensor) -> Tensor:
    torch.manual_seed(2)
    return network(x)


def _sum_of_sines(network: Network, x: Tensor) -> Tensor:
    return _same_noise(network, x).sin().sum()
