"""Gradients against finite differences, and gradients that should be zero."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from pyro_vae.testing.subject import Subject


def check_gradients(
    subject: Subject, module: nn.Module, value: Callable[[], Tensor], what: str
) -> None:
    """Check that gradients reach every parameter, and agree with finite differences.

    Args:
        subject: the part under test.
        module: a module in double precision.
        value: a function that returns a scalar, a smooth function of the module's parameters,
            without noise from call to call.
        what: the name of the scalar in the sentence.
    """
    parameters = {name: p for name, p in module.named_parameters() if p.requires_grad}
    total = value()
    others = [leaf for leaf in _leaves(total) if not any(leaf is p for p in module.parameters())]
    subject.require(
        not others,
        f"{what} depends on a trained tensor of shape {[list(leaf.shape) for leaf in others][:1]} "
        "that is not a parameter of the module: make it a torch.nn.Parameter",
    )
    if not parameters:
        return
    subject.require(total.requires_grad, f"{what} does not depend on any parameter")
    gradients = torch.autograd.grad(total, list(parameters.values()), allow_unused=True)
    for (name, parameter), gradient in zip(parameters.items(), gradients, strict=True):
        subject.require(
            gradient is not None and gradient.abs().sum() > 0,
            f"the gradient of {what} does not reach the parameter '{name}'",
        )
        assert gradient is not None
        direction = torch.randn_like(parameter)
        step = 1e-6 * direction / direction.norm()
        ends = []
        for sign in (1, -1):
            with torch.no_grad():
                parameter.add_(step, alpha=sign)
                ends.append(value().item())
                parameter.sub_(step, alpha=sign)
        expected = (gradient * step).sum().item() * 2
        rounding = 1e-5 * gradient.norm().item() * 2e-6 + 1e-13 * (1 + abs(ends[0]))
        subject.require(
            abs(ends[0] - ends[1] - expected) < 1e-4 * abs(expected) + 50 * rounding,
            f"the gradient of {what} by '{name}' is {expected / 2e-6:.6g} in one direction, and "
            f"finite differences give {(ends[0] - ends[1]) / 2e-6:.6g}",
        )


def check_independence(
    subject: Subject, function: Callable[[Tensor], Tensor], inputs: Tensor, what: str
) -> None:
    """Check that the result for an example depends on no other example of its batch.

    Args:
        subject: the part under test.
        function: maps a batch to results of shape [batch, ...].
        inputs: a batch of two examples or more.
        what: the name of the result in the sentence.
    """
    sentence = (
        f"{what} of one example depends on the other examples of its batch, as with batch "
        "normalisation"
    )
    leaf = inputs.clone().requires_grad_()
    first = function(leaf)[0].sum()
    if first.requires_grad:
        (gradient,) = torch.autograd.grad(first, leaf, allow_unused=True)
        subject.require(gradient is None or not gradient[1:].any(), sentence)
    with torch.no_grad():
        together, again = function(inputs), function(inputs)
        if torch.equal(together, again):  # without dropout
            alone = torch.cat([function(example[None]) for example in inputs])
            subject.require(torch.allclose(together, alone, rtol=1e-5, atol=1e-5), sentence)


def _leaves(value: Tensor) -> list[Tensor]:
    """Return the tensors whose gradients autograd would compute for a value."""
    leaves, seen = [], set()
    nodes = [value.grad_fn]
    while nodes:
        node = nodes.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if hasattr(node, "variable"):
            leaves.append(node.variable)
        nodes += [following for following, _ in node.next_functions]
    return leaves
