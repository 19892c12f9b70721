"""The settings of annealed importance sampling, and the schedules of inverse temperatures."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from pyro_vae.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Settings:
    """How chains get from f_0 to f_1.

    Args:
        temperatures: T, the number of steps from f_0 to f_1.
        chains: C, the number of chains for each example.
        leapfrog: the number of leapfrog steps of a Hamiltonian Monte Carlo move.
        start: f_0: `posterior` is q(z|x), `prior` is p(z), which is further away from f_1.
        schedule: the inverse temperatures b_t: evenly spaced (`linear`), or closer to each other
            at both ends (`sigmoid`).
    """

    temperatures: int = 200
    chains: int = 16
    leapfrog: int = 4
    start: Literal["posterior", "prior"] = "posterior"
    schedule: Literal["sigmoid", "linear"] = "sigmoid"

    def __post_init__(self) -> None:
        for name, least, most in (
            ("temperatures", 1, 1_000_000),
            ("chains", 2, 100_000),
            ("leapfrog", 1, 10_000),
        ):
            value = getattr(self, name)
            if value < least:
                raise InputError(f"{name} have to be at least {least}, but {value} was given", name)
            if value > most:
                raise InputError(f"{name} have to be at most {most}, but {value} was given", name)
        allowed = {"start": ("posterior", "prior"), "schedule": ("sigmoid", "linear")}
        for name, choices in allowed.items():
            value = getattr(self, name)
            if value not in choices:
                raise InputError(f"{name} has to be {' or '.join(choices)}, but is {value}", name)

    def betas(self) -> "Tensor":
        """Return the inverse temperatures b_0, .., b_T, `float64`, ascending from 0 to 1.

        The `sigmoid` schedule is that of Wu et al. (2017), section 4: the logistic function between
        -4 and 4, scaled to [0, 1].
        """
        import torch  # help texts show these settings, and do not need PyTorch

        even = torch.linspace(0, 1, self.temperatures + 1).double()
        if self.schedule == "linear":
            return even
        low, high = torch.sigmoid(torch.tensor([-4.0, 4.0], dtype=torch.float64))
        return ((torch.sigmoid(8 * even - 4) - low) / (high - low)).clamp(0, 1)
