"""Draws of a distribution against its mean and its variance."""

from pyro.distributions import TorchDistribution


def assert_moments(p: TorchDistribution, draws: int = 100_000) -> None:
    """Assert that draws have the mean and the variance of p, within 4.5 standard errors.

    The error of the mean follows from p's variance, that of the variance from the draws.
    """
    x = p.sample((draws,)).double()
    mean, variance = p.mean.double(), p.variance.double()
    deviation = (x.mean(0) - mean).abs()
    assert (deviation <= 4.5 * (variance / draws).sqrt() + 1e-6 * mean.abs()).all(), deviation
    squares = (x - mean).square()
    deviation = (squares.mean(0) - variance).abs()
    error = squares.std(0) / draws**0.5
    assert (deviation <= 4.5 * error + 1e-6 * variance).all(), (deviation, error)
