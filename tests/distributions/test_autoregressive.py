"""The gated PixelCNN against its definition, by enumerated images and by the Jacobian."""

from itertools import product
from math import prod
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from scipy.stats import chi2
from torch import Tensor
from torch.distributions import constraints

from pyro_vae import bounds
from pyro_vae.distributions import Autoregressive
from pyro_vae.errors import InputError
from pyro_vae.networks import GatedPixelCNN, LocalFeatures


def _network(shape: list[int], outputs: int = 1, **options: int) -> GatedPixelCNN:
    """Return a network for a context of two channels, with large weights."""
    torch.manual_seed(1)
    network = GatedPixelCNN(shape, outputs, 2, **options).double()
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.4)
    return network


def _context(shape: list[int], *batch: int) -> Tensor:
    return torch.randn(*batch, 2, *shape[-2:], dtype=torch.float64)


def _bernoulli(parameters: Tensor) -> dist.Distribution:
    return dist.Bernoulli(logits=parameters[:, 0])


def _binary(
    network: GatedPixelCNN, context: Tensor, validate_args: bool | None = None
) -> Autoregressive:
    return Autoregressive(
        network,
        _bernoulli,
        context,
        network.event_shape,
        support=constraints.boolean,
        validate_args=validate_args,
    )


def _all_images(shape: list[int], values: int = 2) -> Tensor:
    images = torch.tensor(list(product(range(values), repeat=prod(shape))), dtype=torch.float64)
    return images.reshape(-1, *shape)


TINY = [[2, 3], [3, 2], [2, 2, 2], [3, 1, 2]]


@pytest.mark.parametrize("shape", TINY)
@pytest.mark.parametrize("layers", [1, 3])
def test_probabilities_of_all_images_sum_to_one(shape: list[int], layers: int) -> None:
    p = _binary(_network(shape, layers=layers), _context(shape, 1))
    probabilities = p.log_prob(_all_images(shape)).exp()
    assert abs(probabilities.sum().item() - 1) < 1e-10
    # The probabilities differ between images.
    assert probabilities.max() > 3 * probabilities.min()


def _levels(parameters: Tensor) -> dist.Distribution:
    return dist.Categorical(logits=parameters.movedim(1, -1))


@pytest.mark.parametrize("shape", TINY)
def test_contexts_that_are_combined_with_the_outputs(shape: list[int]) -> None:
    torch.manual_seed(1)
    network = LocalFeatures(shape, 2, 1).double()
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.4)
    calls: list[int] = []

    def watched(x: Tensor) -> Tensor:
        calls.append(len(x))
        return network(x)

    def combine(features: Tensor, context: Tensor) -> Tensor:
        # [.., 2, *shape] times [.., 2, H, W], the same for all colours.
        for _ in shape[:-2]:
            context = context.unsqueeze(-3)
        return (features * context).sum(-len(shape) - 1, keepdim=True)

    contexts, images = _context(shape, 5, 1), _all_images(shape)
    p = Autoregressive(
        watched, _bernoulli, contexts, shape, support=constraints.boolean, combine=combine
    )
    log_p = p.log_prob(images)
    assert calls == [len(images)]  # not five times as many
    assert log_p.shape == (5, len(images))
    torch.testing.assert_close(log_p.exp().sum(1), torch.ones(5, dtype=torch.float64))
    for i in range(5):
        one = combine(network(images), contexts[i])
        expected = _bernoulli(one).log_prob(images).flatten(1).sum(1)
        torch.testing.assert_close(log_p[i], expected)
    torch.testing.assert_close(p.expand([5, len(images)]).log_prob(images), log_p)
    torch.testing.assert_close(p.log_prob(images[3]), log_p[:, 3:4])
    single = Autoregressive(
        network, _bernoulli, contexts[0, 0], shape, support=constraints.boolean, combine=combine
    )
    _frequencies_agree(single, images)


def test_levels_are_scaled_for_the_network() -> None:
    shape = [2, 2]
    network, context = _network(shape, outputs=3, channels=6, layers=2), _context(shape)
    support = constraints.integer_interval(0, 2)
    p = Autoregressive(network, _levels, context, shape, 2.0, support=support)
    images = _all_images(shape, 3)
    assert abs(p.log_prob(images).exp().sum().item() - 1) < 1e-10
    logits = network(images / 2, context.expand(81, 2, 2, 2))
    expected = _levels(logits).log_prob(images).sum((1, 2))
    torch.testing.assert_close(p.log_prob(images), expected)
    torch.testing.assert_close(p.log_prob(images.to(torch.uint8)), expected)
    _frequencies_agree(p, images)


def _frequencies_agree(p: Autoregressive, images: Tensor, draws: int = 20_000) -> None:
    """Compare the samples' frequencies with the probabilities by Pearson's chi-square."""
    samples = p.sample((draws,))
    assert samples.shape == (draws, *p.event_shape) and p.support.check(samples).all()
    values = int(images.max()) + 1
    place = values ** torch.arange(p.event_shape.numel()).flip(0)
    counts = torch.bincount((samples.flatten(1).long() * place).sum(1), minlength=len(images))
    expected = draws * p.log_prob(images).exp()
    # Images that are too rare for the chi-square approximation share one cell.
    rare = expected < 5
    cells = torch.cat([expected[~rare], expected[rare].sum().reshape(1)])
    observed = torch.cat([counts[~rare], counts[rare].sum().reshape(1)])
    cells, observed = cells[cells > 1], observed[cells > 1]
    statistic = ((observed - cells) ** 2 / cells).sum().item()
    assert len(cells) > 8
    # 7e-6 is the probability of more than 4.5 standard errors on either side.
    assert chi2.sf(statistic, len(cells) - 1) > 7e-6


@pytest.mark.parametrize("shape", TINY)
def test_samples_follow_the_probabilities(shape: list[int]) -> None:
    network = _network(shape, channels=6, layers=2)
    _frequencies_agree(_binary(network, _context(shape)), _all_images(shape))


def _before(shape: list[int], reach: int) -> Tensor:
    """Return whether (sub)pixel i reads (sub)pixel j by the documented field, shape [D, D]."""
    colours, height, width = [1, *shape][-3:]
    at = [torch.arange(n) for n in (colours, height, width)]
    colour, row, column = (g.flatten() for g in torch.meshgrid(*at, indexing="ij"))
    up = row[:, None] - row
    left = column[:, None] - column
    above = (up > 0) & (up <= reach) & (left.abs() <= reach)
    beside = (up == 0) & (left > 0) & (left <= reach)
    within = (up == 0) & (left == 0) & (colour[:, None] > colour)
    return above | beside | within


@pytest.mark.parametrize(
    ("shape", "layers", "kernel_size"),
    [
        ([4, 5], 4, 3),
        ([4, 5], 3, 5),
        ([1, 4, 5], 4, 3),
        ([3, 3, 4], 3, 3),
        ([2, 1, 3], 2, 3),
        # Fields smaller than the image.
        ([6, 7], 1, 3),
        ([6, 7], 1, 5),
        ([6, 7], 2, 3),
        ([3, 4, 5], 1, 3),
    ],
)
def test_each_pixel_reads_its_whole_field_and_nothing_else(
    shape: list[int], layers: int, kernel_size: int
) -> None:
    outputs = 2
    network = _network(shape, outputs, layers=layers, kernel_size=kernel_size)
    size = prod(shape)
    # Sums over images and contexts: for some of them a rectifier has a gradient of zero.
    gradient = torch.zeros(outputs, size, size, dtype=torch.float64)
    for x in torch.rand(16, *shape, dtype=torch.float64):
        context = _context(shape, 1)
        jacobian: Any = torch.autograd.functional.jacobian(
            lambda x, context=context: network(x.unsqueeze(0), context), x
        )
        gradient += jacobian.reshape(outputs, size, size).abs()
    field = _before(shape, layers * (kernel_size // 2))
    if layers * (kernel_size // 2) >= max(shape[-2:]) - 1:
        # No blind spot: the field must be all (sub)pixels before this one in raster order.
        order = torch.arange(size).reshape([1, *shape][-3:]).permute(1, 2, 0).flatten()
        rank = order.argsort()
        assert torch.equal(field, rank[:, None] > rank)
    for each in gradient:
        assert (each[~field] == 0).all()
        assert (each[field] > 0).all()


@pytest.mark.parametrize(
    ("shape", "reach"), [([4, 5], 1), ([6, 7], 2), ([4, 5], 6), ([3, 4, 5], 1), ([2, 1, 3], 2)]
)
def test_each_feature_reads_its_whole_field_and_nothing_else(shape: list[int], reach: int) -> None:
    torch.manual_seed(1)
    network, size = LocalFeatures(shape, 3, reach).double(), prod(shape)
    x = torch.rand(1, *shape, dtype=torch.float64)
    jacobian: Any = torch.autograd.functional.jacobian(network, x)
    field = _before(shape, reach)
    for each in jacobian.reshape(3, size, size).abs():
        assert (each[~field] == 0).all()
        assert (each[field] > 0).all()
    # Without its bottom rows, an image has the same features in the rows that are left.
    torch.testing.assert_close(network(x[..., :1, :]), network(x)[..., :1, :])


@pytest.mark.parametrize(
    ("shape", "layers", "kernel_size"),
    [([3, 3], 4, 5), ([3, 3, 3], 3, 3), ([4, 5], 2, 3), ([4, 5], 1, 3), ([6, 6], 2, 5)],
)
def test_every_output_depends_on_the_context_of_its_field(
    shape: list[int], layers: int, kernel_size: int
) -> None:
    network = _network(shape, outputs=2, layers=layers, kernel_size=kernel_size)
    pixels, size = prod(shape[-2:]), prod(shape)
    gradient = torch.zeros(2, size, 2, pixels, dtype=torch.float64)
    for x in torch.rand(16, 1, *shape, dtype=torch.float64):
        jacobian: Any = torch.autograd.functional.jacobian(
            lambda context, x=x: network(x, context), _context(shape, 1)
        )
        gradient += jacobian.reshape(gradient.shape).abs()
    reach = (layers - 1) * (kernel_size // 2)
    row, column = torch.arange(pixels) // shape[-1], torch.arange(pixels) % shape[-1]
    up, aside = row[:, None] - row, (column[:, None] - column).abs()
    field = ((up >= 0) & (up <= reach) & (aside <= reach)).repeat(size // pixels, 1)
    for output, channel in product(range(2), range(2)):
        each = gradient[output, :, channel]
        assert (each[field] > 0).all()
        assert (each[~field] == 0).all()


def test_each_gated_layer_takes_the_context() -> None:
    # The context still has an effect if all layers but one ignore it.
    network = _network([3, 3], layers=3)
    x, context = torch.rand(1, 3, 3, dtype=torch.float64), _context([3, 3], 2)
    for reader in range(3):
        weights = [layer.context.weight for layer in network.layers]
        saved = [weight.detach().clone() for weight in weights]
        for i, weight in enumerate(weights):
            weight.data.mul_(i == reader)
        first, second = network(x.expand(2, 3, 3), context)
        assert (first != second).all()
        for weight, old in zip(weights, saved, strict=True):
            weight.data.copy_(old)


def test_residuals_and_skips_carry_the_image() -> None:
    # In an image of one row only the horizontal stack reads other pixels.
    shape, context = [1, 5], _context([1, 5], 2)
    x = torch.rand(2, 1, 5, dtype=torch.float64)
    skips, channels = [], 8

    def depends(network: GatedPixelCNN) -> bool:
        first, second = network(x, context[:1].expand(2, 2, 1, 5))
        return bool((first != second).any())

    for skipping in range(3):
        network = _network(shape, channels=channels, layers=3)
        for i, layer in enumerate(network.layers):
            if i != skipping:
                layer.residual_and_skip.weight.data[channels:] = 0
        skips.append(depends(network))
    assert skips == [True] * 3
    # The middle layer is zero and the first has no skip: only the residual carries the image.
    network = _network(shape, channels=channels, layers=3)
    network.layers[1].residual_and_skip.weight.data.zero_()
    network.layers[0].residual_and_skip.weight.data[channels:] = 0
    assert depends(network)


@pytest.mark.parametrize("shape", [[5, 4], [3, 5, 4]])
def test_a_cropped_image_has_the_cropped_outputs(shape: list[int]) -> None:
    network = _network(shape, outputs=2)
    x, context = torch.rand(3, *shape, dtype=torch.float64), _context(shape, 3)
    whole = network(x, context)
    assert whole.shape == (3, 2, *shape)
    for rows in range(1, 6):
        cropped = network(x[..., :rows, :], context[..., :rows, :])
        torch.testing.assert_close(cropped, whole[..., :rows, :], atol=1e-12, rtol=1e-12)


def test_every_parameter_is_trained_and_channels_are_rounded_up() -> None:
    network = _network([3, 4, 4], channels=16)
    assert network.layers[1].vertical.in_channels == 18
    x, context = torch.rand(2, 3, 4, 4, dtype=torch.float64), _context([4, 4], 2)
    network(x, context).square().sum().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name
        if "context" in name:  # both stacks read the context
            assert (parameter.grad != 0).all(), name
    for layer in network.layers[1:]:
        # Only the first layer does not read the pixel's own colour.
        own = layer.horizontal.weight.grad[:, :, 0, -1]
        assert (own[::3, ::3] != 0).all() and (own[::3, 1::3] == 0).all()
    assert all("mask" not in name for name in network.state_dict())


@pytest.mark.parametrize("shape", [[2, 3], [2, 2, 2]])
def test_leading_dimensions(shape: list[int]) -> None:
    network = _network(shape)
    context = _context(shape, 3, 4)
    p = _binary(network, context)
    assert p.batch_shape == (3, 4) and p.event_shape == tuple(shape)
    x = p.sample()
    assert x.shape == (3, 4, *shape) and not x.requires_grad and not p.has_rsample
    assert p.sample((2, 5)).shape == (2, 5, 3, 4, *shape)
    assert p().shape == (3, 4, *shape)
    one_by_one = [
        [_binary(network, context[i, j]).log_prob(x[i, j]) for j in range(4)] for i in range(3)
    ]
    expected = torch.stack([torch.stack(row) for row in one_by_one])
    assert one_by_one[0][0].shape == ()
    torch.testing.assert_close(p.log_prob(x), expected)
    # The network runs without a graph.
    enabled = []

    def watched(x: Tensor, context: Tensor) -> Tensor:
        enabled.append(torch.is_grad_enabled())
        return network(x, context)

    Autoregressive(watched, _bernoulli, context, shape, support=constraints.boolean).sample()
    assert len(enabled) == prod(shape) and not any(enabled)
    # Either the value or the batch can have more dimensions.
    images = p.sample((2,))
    torch.testing.assert_close(p.log_prob(images)[1], p.log_prob(images[1]))
    torch.testing.assert_close(p.log_prob(x[0])[2], _binary(network, context[2]).log_prob(x[0]))
    torch.testing.assert_close(p.log_prob(x[1, 2])[2, 0], p.log_prob(x[1:2, 2:3])[2, 0])
    single = _binary(network, context[0, 0])
    assert single.batch_shape == () and single.sample().shape == tuple(shape)
    torch.testing.assert_close(single.log_prob(x)[1, 2], single.log_prob(x[1, 2]))


def test_expand() -> None:
    network, context = _network([2, 3]), _context([2, 3], 4)
    p = _binary(network, context, validate_args=False)
    expanded = p.expand((5, 4))
    assert expanded.batch_shape == (5, 4) and expanded.event_shape == (2, 3)
    assert expanded._validate_args is False
    x = expanded.sample()
    assert x.shape == (5, 4, 2, 3)
    assert not torch.equal(x[0], x[1])
    torch.testing.assert_close(expanded.log_prob(x)[3], p.log_prob(x[3]))
    assert expanded.support.event_dim == 2


def test_works_in_plates_and_under_particles() -> None:
    network = _network([2, 3])
    lift = torch.randn(2, 12, dtype=torch.float64)
    zero = torch.zeros(2, dtype=torch.float64)

    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(zero, 1).to_event(1))
            context = (z @ lift).unflatten(-1, (2, 2, 3))
            pyro.sample("x", _binary(network, context), obs=x)

    def guide(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            # q(z) is the prior, so the weights are p(x | z).
            pyro.sample("z", dist.Normal(zero, 1).to_event(1))

    x = _all_images([2, 3])
    particles = pyro.plate("particles", 7, dim=-2)
    trace = poutine.trace(particles(guide)).get_trace(x)
    z = trace.nodes["z"]["value"]
    assert z.shape == (7, 64, 2)
    replayed = poutine.trace(poutine.replay(particles(model), trace=trace)).get_trace(x)
    replayed.compute_log_prob()
    expected = torch.stack(
        [_binary(network, (each @ lift).unflatten(-1, (2, 2, 3))).log_prob(x) for each in z]
    )
    torch.testing.assert_close(replayed.nodes["x"]["log_prob"], expected)
    log_w = bounds.log_weights(model, guide, x, 200)
    assert log_w.shape == (200, 64)
    # The mean weights are unbiased for p(x), so their sum is one, within 4.5 standard errors.
    weights = log_w.exp().detach()
    error = (weights.var(0) / 200).sum().sqrt()
    assert abs(weights.mean(0).sum() - 1) < 4.5 * error
    # An unobserved site in a plate, which expands the distribution.
    with pyro.plate("images", 5):
        drawn = pyro.sample("y", _binary(network, _context([2, 3])))
    assert drawn.shape == (5, 2, 3)


def test_gradients_reach_the_network_and_the_context() -> None:
    network, context = _network([2, 3], layers=2), _context([2, 3], 2).requires_grad_()
    x = torch.ones(2, 2, 3, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda c: _binary(network, c).log_prob(x), context)


def test_refusals() -> None:
    for shape, options, message in [
        ([7], {}, r"needs images \[H, W\] or \[C, H, W\], not \[7\]"),
        ([1, 2, 3, 4], {}, "needs images"),
        ([0, 3], {}, "event_shape has to be positive"),
        ([2, 3], {"outputs": 0}, "outputs has to be positive, but is 0"),
        ([2, 3], {"context_channels": 0}, "context_channels has to be positive"),
        ([2, 3], {"channels": 0}, "channels has to be positive"),
        ([2, 3], {"layers": -1}, "layers has to be positive, but is -1"),
        ([2, 3], {"kernel_size": 4}, "kernel_size has to be odd and 3 or more, not 4"),
        ([2, 3], {"kernel_size": 1}, "kernel_size has to be odd and 3 or more"),
        ([2, 3], {"kernel_size": -3}, "kernel_size has to be odd and 3 or more"),
    ]:
        with pytest.raises(InputError, match=message):
            GatedPixelCNN(shape, **{"outputs": 1, "context_channels": 1, **options})
    network = _network([2, 3])
    for wrong in (torch.zeros(2, 3), torch.zeros(4, 2, 3, 2)):
        with pytest.raises(InputError, match="height and width"):
            _binary(network, wrong)
    context = _context([2, 3], 4)
    with pytest.raises(ValueError, match="context"):
        _binary(network, context * float("nan"))
    with pytest.raises(ValueError, match="support"):
        _binary(network, context).log_prob(torch.full((2, 3), 0.5, dtype=torch.float64))
    with pytest.raises(ValueError, match="event_shape"):
        _binary(network, context).log_prob(torch.zeros(3, 2, dtype=torch.float64))
