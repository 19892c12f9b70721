"""What an evaluation measures: the options of `pyro-vae evaluate`."""

from dataclasses import dataclass, field
from typing import Literal

from pyro_vae.bounds import Settings
from pyro_vae.errors import InputError
from pyro_vae.runs.checked_fields import at_least, check_fields

MOST_DRAWS = 1_000_000


@dataclass(frozen=True)
class Plan:
    """What an evaluation measures beside the ELBO and IWAE.

    Args:
        method: importance gives the ELBO and IWAE only; ais also bounds log p(x) from both sides,
            by annealed importance sampling.
        ais: The chains of annealed importance sampling, from q(z|x) or p(z) to p(x, z).
        subset: The number of test examples to anneal; by default all. The mean over all is
            then IWAE's mean over all plus the mean difference on these.
        simulated: The number of examples to draw from the model. Chains in both directions show how
            tight annealing is on them; 0 leaves it out.
        refine: The number of SVI steps that refine q(z|x) for each example, to measure the
            amortisation gap; 0 leaves it out.
        checks: The number of examples to draw from the model for predictive checks; 0 leaves
            them out. Autoregressive likelihoods are slow to draw from, pixel by pixel.
        classify: The number of draws of z for each class, to classify the test examples by Bayes'
            rule if the condition is one column of classes; 0 leaves it out.
        imputations: The number of draws of z for each test example, to impute values that
            hold_out_entries has hidden; 0 leaves it out.
        draws: The number of draws for each of 50 test examples, in each of 4 chains, in bounds.nc;
            0 leaves the file out, which saves autoregressive likelihoods much time.
    """

    method: Literal["importance", "ais"] = "importance"
    ais: Settings = field(default_factory=Settings)
    subset: int | None = at_least(2, None)
    simulated: int = at_least(0, 20, most=MOST_DRAWS)
    refine: int = at_least(0, 0)
    checks: int = at_least(0, 1000, most=MOST_DRAWS)
    classify: int = at_least(0, 100, most=MOST_DRAWS)
    imputations: int = at_least(0, 1000, most=MOST_DRAWS)
    draws: int = at_least(0, 10, most=MOST_DRAWS)

    def __post_init__(self) -> None:
        check_fields(self)
        if self.checks == 1:
            raise InputError("checks takes two examples or more, or 0 to leave them out", "checks")
        if self.ais != Settings() and self.method != "ais":
            raise InputError(
                "settings of ais (chains, temperatures, ..) need annealing: use the method ais",
                "method",
            )
        if self.subset is not None and self.method != "ais":
            raise InputError(
                "subset (number of examples to anneal) needs annealing: use the method ais",
                "method",
            )
