"""What is expected of every call: evidence, ELBO and log-weights, from closed forms."""

import contextlib
import math
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import autoguides
import closed_forms
import pyro
import torch
from calls import Call, call_of
from closed_forms import Law, Posterior
from constants import batch_statistic, make, with_outside
from descriptions import Description
from programs import SCALE, SIZED, make_pair
from pyro.infer import Trace_ELBO, TraceEnum_ELBO
from torch import Tensor

TOLERANCES = {"float64": 1e-6, "float32": 2e-3, "bfloat16 data": 2e-3, "bfloat16": 5e-2}
DRAWS = 4000  # of the reference log-weights


@dataclass
class Case:
    """A description, made into programs, with what is known of them.

    Args:
        d: the description.
    """

    d: Description

    def __post_init__(self) -> None:
        pyro.clear_param_store()
        self.constants, self.rows = make(self.d)
        self.given = with_outside(self.d, self.rows)
        self.model, self.guide = make_pair(self.d, self.constants, self.rows, self.given)

    @property
    def call(self) -> Call:
        """The arguments of the programs."""
        return call_of(self.d, self.given, self.constants.noise)

    @property
    def tolerance(self) -> float:
        """How far rounding may move a log-probability."""
        return TOLERANCES[self.d.dtype] * (1 + self.d.examples)

    @cached_property
    def evidence(self) -> Tensor:
        """Log p(x), [n], or [1] where a variable is global."""
        return closed_forms.evidence(self.d, self.constants, self.rows)

    def evidence_of(self, count: int) -> Tensor | None:
        """Return log p(x) of each of `count` parts; None if there is no such number."""
        if count == len(self.evidence):
            return self.evidence
        return self.evidence.sum()[None] if count == 1 else None

    @cached_property
    def laws(self) -> tuple[Posterior, Law]:
        """The posterior and the guide's law, in the groups that the guide allows."""
        if self.d.is_automatic:
            return autoguides.law(self.d, self.constants, self.rows)
        p = closed_forms.posterior(self.d, self.constants, self.rows)
        shift, widen = self.parameters()
        return p, closed_forms.law(self.d, p, self.spread(shift), self.spread(widen))

    def parameters(self) -> tuple[Tensor, Tensor]:
        """Return the shift and the widening of (u, z1, z2), as leaves, [size] each."""
        size = self.d.global_width + self.d.layers * self.d.latent_width
        return tuple(  # type: ignore[return-value]
            torch.full((size,), value, dtype=torch.float64, requires_grad=True)
            for value in (self.d.shift, self.d.widen)
        )

    def spread(self, values: Tensor) -> Tensor:
        """Repeat the numbers of (u, z1, z2) for all examples of a group, [M]."""
        g, width = self.d.global_width, self.d.latent_width
        n = self.d.examples if self.d.has_one_evidence else 1
        parts = [values[:g]]
        parts += [part.repeat(n) for part in values[g:].split(width) if self.d.layers]
        return torch.cat(parts)

    def law_of(self, p: Posterior, shift: Tensor, widen: Tensor) -> Law:
        """Return the law of a guide with these parameters."""
        shift = self.spread(shift)
        if self.d.batch_statistics == "guide":
            statistic = 0.2 * batch_statistic(self.rows.x, self.rows.observed)
            own = torch.arange(len(shift)) >= self.d.global_width
            shift = shift + statistic * own
        return closed_forms.law(self.d, p, shift, self.spread(widen))

    @cached_property
    def log_w(self) -> Tensor | None:
        """Reference log-weights, [DRAWS, groups]; None if the guide's law is not known."""
        if self._has_unknown_law:
            return None
        with torch.no_grad(), torch.random.fork_rng():
            torch.manual_seed(self.d.seed + 1)
            if self.d.guide == "AutoIAFNormal":
                z, log_q = autoguides.draws(self.d, self.guide, self.call, DRAWS)
                return (closed_forms.log_joint(self.laws[0], z) - log_q)[:, None]
            return closed_forms.log_weights(
                self.d, self.constants, self.rows, *self._final_laws, DRAWS
            )

    @property
    def _has_unknown_law(self) -> bool:
        d = self.d
        if d.guide == "AutoIAFNormal" and d.mask in ("both sides", "model only"):
            return True
        return d.is_automatic and d.observation == "obs_mask"

    @cached_property
    def _final_laws(self) -> tuple[Posterior, Law]:
        if self.d.is_automatic:
            return self.laws
        p = closed_forms.posterior(self.d, self.constants, self.rows)
        return p, self.law_of(p, *self.parameters())

    def log_w_of(self, count: int) -> Tensor | None:
        """Return reference log-weights of each of `count` parts, [DRAWS, count]."""
        if self.log_w is None or count == self.log_w.shape[1]:
            return self.log_w
        if count == 1:
            return self.log_w.sum(1, keepdim=True)
        return None

    def elbo_of(self, count: int) -> tuple[Tensor, Tensor] | None:
        """Return the ELBO of each of `count` parts and the error of this number, [count] each."""
        log_w = self.log_w_of(count)
        if log_w is None or self.d.enumerate == "guide":
            return None
        if self.d.enumerate == "model" or self.d.guide == "AutoIAFNormal":
            return log_w.mean(0), log_w.std(0) / DRAWS**0.5
        p, q = self._final_laws
        with torch.no_grad():
            elbo = closed_forms.elbo(self.d, self.constants, self.rows, p, q)
        elbo = elbo if count == len(elbo) else elbo.sum()[None]
        return elbo, torch.zeros_like(elbo)

    @property
    def scale(self) -> float | None:
        """The factor of Pyro's ELBO, if it is the same everywhere; else None."""
        if self.d.scale is None:
            return 1.0
        if self.d.scale == "both sides":
            return SCALE
        if self.d.scale == "sized" and not self.d.has_one_evidence and not self.d.is_automatic:
            return float(SIZED)
        return None

    def pyro_loss(self, particles: int = 1) -> float:
        """Return the loss of Pyro's own ELBO, one particle at a time."""
        kind = TraceEnum_ELBO if self.d.enumerate else Trace_ELBO
        with quiet():
            return kind(num_particles=particles, max_plate_nesting=self.nesting).loss(
                self.model, self.guide, *self.call.args, **self.call.kwargs
            )

    @property
    def nesting(self) -> int:
        """The number of dimensions of the plates."""
        d = self.d
        inner = d.in_features or d.observation in ("plate", "obs_mask")
        return 0 if d.sequential else max(-d.dim, -d.feature_dim if inner else 0)

    @cached_property
    def pyro_error(self) -> Exception | None:
        """The error that Pyro's own ELBO raises for these programs, if any."""
        torch.manual_seed(self.d.seed)
        try:
            loss = self.pyro_loss()
        except Exception as error:
            return error
        return None if math.isfinite(loss) else ArithmeticError("the loss is not finite")


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Show no warnings."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


Check = Callable[[Case], Any]
