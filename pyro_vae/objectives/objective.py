"""The base class of all objectives."""

import math
from abc import abstractmethod
from collections.abc import Hashable, Mapping
from typing import Any, ClassVar

import pyro.infer
import torch
from torch import Tensor

from pyro_vae import bounds
from pyro_vae.errors import InputError
from pyro_vae.objectives.draws import TrainingDraws
from pyro_vae.programs import ranks
from pyro_vae.programs.arguments import Arguments
from pyro_vae.programs.looking import look_at_once
from pyro_vae.programs.pair import Pair
from pyro_vae.programs.traces import Program
from pyro_vae.programs.training_mode import modes


class Objective(pyro.infer.ELBO):
    """A training objective. It may change in the course of training.

    Every objective takes the keyword arguments of `pyro.infer.ELBO`, so that it can replace one of
    Pyro's in a script. `vectorize_particles` says whether all draws are made at once (True), or by
    one run for each (False). By default they are made at once if that gives the same
    log-probabilities, whereas Pyro's default is False. `retain_graph` is that of `backward`.
    `max_plate_nesting` is where enumerated sites begin; otherwise the plates are found by running
    the programs. `plate` is the name of the plate of the examples, as in `pyro_vae.bounds`; it is
    needed only where all sites are in several plates, and the objective is no mean of log-weights.
    `strict_enumeration_warning`, `ignore_jit_warnings`, `jit_options` and
    `tail_adaptive_beta` have no effect: there is one class for programs with and without enumerated
    sites, and none for Pyro's JIT. `RenyiELBO(alpha, num_particles)` is
    `Renyi(num_particles, alpha)`.

    Model and guide are called with the positional and keyword arguments of `loss`,
    `loss_and_grads` or `differentiable_loss`. Each time that these have another structure, the
    programs are run a few times, to find out how they may be run. The structure is the nesting of
    the arguments, the number of dimensions of each tensor, the values of flags and strings, and
    whether modules are in training mode.

    Args:
        num_particles: the number of draws of z for each x.
        pyro_options: the other arguments of `pyro.infer.ELBO`.

    Attributes:
        learns: whether a training step changes the objective itself. The compiled engine cannot
            take such steps, because one graph stands for all of them.

    Raises:
        InputError: if num_particles < 1.
    """

    learns: ClassVar[bool] = False

    def __init__(self, num_particles: int, pyro_options: Mapping[str, Any] | None = None) -> None:
        if num_particles < 1:
            raise InputError(
                f"num_particles has to be at least 1, but is {num_particles}", "num_particles"
            )
        options = dict(pyro_options or {})
        self._plates: float = options.get("max_plate_nesting", math.inf)
        self._plate: str | None = options.pop("plate", None)
        self._vectorize: bool | None = options.pop("vectorize_particles", None)
        super().__init__(
            num_particles=num_particles, vectorize_particles=self._vectorize is not False, **options
        )
        self.is_finite = True  # the last training loss; on a GPU it is not looked at
        self._pairs: dict[Hashable, Pair] = {}  # by the structure of the arguments

    @property
    def linear(self) -> bool:
        """Whether the objective is a mean of log-weights.

        Then it may be used with a scale for each site, and with point estimates. The others are
        not: log E[w^c] is not c log E[w], and the weight of a point is no density.
        """
        return False

    @property
    def num_draws(self) -> int:
        """The number of draws of z for each x in all, over all groups of particles."""
        return self.num_particles

    def anneal(self, epoch: float, progress: float = 0.0) -> None:
        """Set the objective's schedule; most have none.

        Args:
            epoch: the number of epochs that are done.
            progress: the share of training that is done, from 0 to 1.
        """

    def bound(self, log_w: Tensor) -> Tensor:
        """Return the bound on log p(x) that is used to choose between models.

        Args:
            log_w: log-weights in nats, shape [K, batch].

        Returns:
            Nats, shape [batch]. Their expectation is not above log p(x).
        """
        return bounds.iwae(log_w)

    @abstractmethod
    def differentiable_loss(
        self, model: Program, guide: Program, *args: Any, **kwargs: Any
    ) -> Tensor:
        """Return the training loss, summed over the examples, to be differentiated.

        Args:
            model: a Pyro program.
            guide: a Pyro program, the model's guide.
            args: what both are called with.
            kwargs: the same, by name.
        """

    def loss(self, model: Program, guide: Program, *args: Any, **kwargs: Any) -> float:
        """Return the negative of `bound`, summed over the examples."""
        with torch.no_grad():
            draws = self.draw(model, guide, Arguments(*args, **kwargs))
            return -draws.scaled(self.bound(draws.log_w).sum()).item()

    def loss_and_grads(self, model: Program, guide: Program, *args: Any, **kwargs: Any) -> float:
        """Return the training loss, and add its gradients to those of the parameters."""
        return self.backward(self.differentiable_loss(model, guide, *args, **kwargs))

    def backward(self, loss: Tensor) -> float:
        """Add the gradients of a loss to those of the parameters, and return the loss.

        If the loss is not finite, no gradients are added: the parameters stay as they are, to see
        why. Of a share of a batch they always are, since all processes add up the same tensors.
        """
        # On a GPU this would take time in every step: the gradients would wait for the loss.
        self.is_finite = loss.device.type != "cpu" or math.isfinite(loss.item())
        if loss.requires_grad and (self.is_finite or ranks.current() is not None):
            loss.backward(retain_graph=self.retain_graph)
        return loss.item()

    def state_dict(self) -> dict[str, Any]:
        """Return the part of the objective that training has changed; for most it is empty."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the state that `state_dict` returned."""

    def draw(
        self, model: Program, guide: Program, arguments: Arguments | Any, *, path: bool = True
    ) -> TrainingDraws:
        """Draw from the guide, and compute the log-probabilities under both programs.

        Args:
            model: a Pyro program.
            guide: a Pyro program, the model's guide.
            arguments: what both are called with; a tensor is a single argument.
            path: whether gradients through z reach the guide.

        Raises:
            InputError: if the objective does not exist for such programs.
        """
        arguments = Arguments.of(arguments)
        pair = self.pair(model, guide, arguments)
        if pair.guide_enumerates:
            raise InputError(
                "a site of the guide is marked for enumeration, and only ELBO takes the "
                "expectation over all its values: use ELBO, with the full weight of the KL, or "
                "leave the mark out",
                "objective",
            )
        return TrainingDraws(pair, arguments, self.num_draws, path=path, site_scales=self.linear)

    def pair(self, model: Program, guide: Program, arguments: Arguments) -> Pair:
        """Return how the programs may be run, which is found out once for each structure."""
        for known in self._pairs.values():
            if known.model != model or known.guide != guide:
                self._pairs.clear()
            break
        structure = (modes(model, guide), arguments.structure())
        if structure not in self._pairs:
            self._pairs[structure] = look_at_once(
                model,
                guide,
                arguments,
                plate=self._plate,
                vectorize=self._vectorize if self.num_draws > 1 else False,
                linear=self.linear,
            )
        return self._pairs[structure]

    def _get_trace(self, model: Program, guide: Program, args: Any, kwargs: Any) -> Any:
        raise NotImplementedError("objectives work on all draws at once, not on a single trace")
