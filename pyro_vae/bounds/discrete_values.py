"""Discrete sites of finitely many values: their values, as one-hot weights, and their gradients.

A site is made of variables, the entries of a binary code for example. Each has the same V values,
and is laid out as V weights: one of them is 1, and the others are 0. A log-density is a function of
the values only. Beside its exact value it gets a gradient by the weights: its entry for value v of
a variable estimates how the log-density would change with that value. Moves take the gradient as a
proposal alone, so it need not be exact.
"""

from typing import Any

from pyro.distributions.torch_distribution import MaskedDistribution
from torch import Tensor
from torch.distributions import (
    Categorical,
    Independent,
    MixtureSameFamily,
    OneHotCategorical,
    TransformedDistribution,
)

from pyro_vae.errors import InputError

LEAST_LOG_PROB = -1e4  # stands for the log-probability of an impossible value, in gradients only


def finite_values(name: str, fn: Any) -> Tensor | None:
    """Return the values of each variable of a site, shape [V, *event]; None if it is continuous.

    Args:
        name: the name of the site.
        fn: the distribution of the site.

    Raises:
        InputError: if the site is discrete, and its values cannot be enumerated.
    """
    inner = _inner(fn)
    if inner is not None:
        return finite_values(name, inner)
    if not fn.support.is_discrete:
        return None
    try:
        return fn.enumerate_support(expand=False).reshape(-1, *fn.event_shape)
    except NotImplementedError as error:
        raise InputError(
            f"site '{name}' is discrete, and its values cannot be enumerated: annealing moves "
            "continuous variables, and discrete variables of finitely many values"
        ) from error


def to_weights(name: str, fn: Any, value: Tensor, values: Tensor) -> Tensor:
    """Return the weights of a site's value, shape [*variables, V].

    Args:
        name: the name of the site.
        fn: the distribution of the site.
        value: the value of the site.
        values: the values of each variable, shape [V, *event].

    Raises:
        InputError: if the value of a variable is not among its values.
    """
    value = _untransformed(fn, value)
    event_dims = values.dim() - 1
    equal = value.unsqueeze(-1 - event_dims) == values
    weights = equal.flatten(equal.dim() - event_dims).all(-1) if event_dims else equal
    if not (weights.sum(-1) == 1).all():
        raise InputError(f"site '{name}' has a value that is not among its possible values")
    return weights.to(_table(name, fn).dtype)


def from_weights(fn: Any, weights: Tensor, values: Tensor) -> Tensor:
    """Return the value of a site; a floating-point value has gradients by the weights.

    Args:
        fn: the distribution of the site.
        weights: the weights, shape [*variables, V].
        values: the values of each variable, shape [V, *event].
    """
    value = values[weights.argmax(-1)]
    if values.is_floating_point():
        weighted = weights.to(values.dtype) @ values.reshape(len(values), -1)
        weighted = weighted.reshape(value.shape)
        value = value + (weighted - weighted.detach())
    return _transformed(fn, value)


def log_prob(name: str, fn: Any, value: Tensor, weights: Tensor, count: int) -> Tensor:
    """Return the log-probability of a site, with gradients by the weights of the site itself.

    Args:
        name: the name of the site.
        fn: the distribution of the site.
        value: the value of the site.
        weights: the weights of the value, shape [*variables, V].
        count: the number V of values.

    Returns:
        Log-probabilities in nats, in the batch shape of the distribution.

    Raises:
        InputError: if a variable does not have V values.
    """
    if weights.shape[-1] != _table(name, fn).shape[-1]:
        raise InputError(f"the possible values of site '{name}' depend on another site")
    relaxed = _relaxed(name, fn, weights)
    return fn.log_prob(value.detach()) + (relaxed - relaxed.detach())


def _inner(fn: Any) -> Any | None:
    """Return the distribution that has the variables, if this one is made from another."""
    if isinstance(fn, Independent | TransformedDistribution | MaskedDistribution):
        return fn.base_dist
    if isinstance(fn, MixtureSameFamily):
        return fn.component_distribution
    return None


def _variables(fn: Any) -> Any:
    """Return the distribution of the single variables."""
    inner = _inner(fn)
    return fn if inner is None else _variables(inner)


def _transformed(fn: Any, value: Tensor) -> Tensor:
    """Return the value of a site whose variables have the given values."""
    inner = _inner(fn)
    if inner is not None:
        value = _transformed(inner, value)
    if isinstance(fn, TransformedDistribution):
        for transform in fn.transforms:
            value = transform(value)
    return value


def _untransformed(fn: Any, value: Tensor) -> Tensor:
    """Return the values of the variables of a site that has the given value."""
    if isinstance(fn, TransformedDistribution):
        for transform in reversed(fn.transforms):
            value = transform.inv(value)
    inner = _inner(fn)
    return value if inner is None else _untransformed(inner, value)


def _table(name: str, fn: Any) -> Tensor:
    """Return the log-probability of each value of each variable, shape [*variables, V]."""
    inner = _inner(fn)
    if inner is not None:
        return _table(name, inner)
    if isinstance(fn, Categorical | OneHotCategorical):
        return fn.logits
    values = finite_values(name, fn)
    assert values is not None
    values = values.reshape(len(values), *[1] * len(fn.batch_shape), *fn.event_shape)
    return fn.log_prob(values).movedim(0, -1)


def _relaxed(name: str, fn: Any, weights: Tensor) -> Tensor:
    """Return the log-probability as a function of the weights, in the batch shape of `fn`."""
    inner = _inner(fn)
    if inner is None:
        table = _table(name, fn).detach().clamp(min=LEAST_LOG_PROB)
        return (weights * table).sum(-1)
    if isinstance(fn, MixtureSameFamily):
        # The components have the same values. Their dimension is before those of the variables.
        own_dims = len(_variables(inner).batch_shape) - len(inner.batch_shape)
        weights = weights.unsqueeze(-2 - own_dims)
        log_weights = fn.mixture_distribution.logits.detach().clamp(min=LEAST_LOG_PROB)
        return (log_weights + _relaxed(name, inner, weights)).logsumexp(-1)
    relaxed = _relaxed(name, inner, weights)  # a mask is left out: this is for proposals only
    summed = list(range(len(fn.batch_shape) - relaxed.dim(), 0))
    return relaxed.sum(summed) if summed else relaxed
