"""What an engine is: it takes the steps of stochastic variational inference."""

from collections.abc import Callable
from typing import Any, Protocol

from torch import nn

from pyro_vae.objectives import Objective
from pyro_vae.programs.arguments import Arguments
from pyro_vae.programs.ranks import Share

Data = Any  # a tensor, tensors in tuples, lists and dictionaries, or `Arguments`
Observe = Callable[[Data], Data]


def unchanged(examples: Data) -> Data:
    """Return examples unchanged: the likelihood sees them as they are stored."""
    return examples


def as_arguments(x: Data) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return the arguments that programs are called with, by position and by name."""
    arguments = Arguments.of(x).unmarked()
    return arguments.args, arguments.kwargs


class Engine(Protocol):
    """What `fit` needs of an engine. Any class with these attributes and methods is one.

    Attributes:
        model: the Pyro program that is trained, as a module.
        guide: its guide.
        objective: the training objective. `fit` calls its `anneal` before each step.
        lr: the learning rate of the next step. A `Schedule` sets it before each step.
    """

    model: nn.Module
    guide: nn.Module
    objective: Objective
    lr: float

    def step(self, x: Data, observe: Observe = unchanged, share: Share | None = None) -> float:
        """Take a gradient step.

        Only parameters with `requires_grad` may change: callbacks hold the others fixed.

        Args:
            x: a batch of stored examples, a tensor of shape [batch, *event], or a nest of tensors;
                a tuple holds the positional arguments of the programs.
            observe: a function that turns stored examples into what the likelihood sees.
            share: which rows of a batch x is, if several processes take the step together. It is
                given only then.

        Returns:
            The objective before the step, summed over the batch, in nats.
        """
        ...

    def evaluate_loss(self, x: Data) -> float:
        """Estimate the negative of the objective's bound on log p(x).

        The KL has its full weight in this bound, whatever weight the objective's schedule gives it.

        Args:
            x: a batch of examples as the likelihood sees them, of any form that `step` takes.

        Returns:
            Nats, summed over the batch.
        """
        ...

    def check(self, x: Data) -> None:
        """Run the programs as in a step and as in an evaluation, once each, and change nothing.

        Parameters that the programs make when they first run are made.

        Args:
            x: a batch of examples as the likelihood sees them, of any form that `step` takes.

        Raises:
            InputError: if the programs and the objective do not go together.
        """
        ...

    def state_dict(self) -> dict[str, Any]:
        """Return all that later steps depend on."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        ...
