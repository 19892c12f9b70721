"""The terms that pages use, explained."""

from typing import Any

TERMS = (
    ("nat", "The unit of logarithms to base e. One bit is 0.69 nats."),
    ("log p(x)", "The log-probability, or log-density, that the model gives to an example."),
    ("ELBO", "The evidence lower bound: a lower bound on log p(x), which training maximises."),
    ("IWAE_K", "A lower bound on log p(x) by importance sampling with K draws. It grows with K."),
    ("AIS", "Annealed importance sampling, which bounds log p(x) from below and from above."),
    (
        "se, ±, 95 % interval",
        "How far the mean over these test examples may be from the mean over all examples of this "
        "kind. The se and the number after ± are one standard error; the interval has about two "
        "of them to each side.",
    ),
    (
        "MC error",
        "The Monte Carlo error: how far the mean for the same examples may be from what more draws "
        "of z would give. It is unknown where a few draws have nearly all the weight.",
    ),
    (
        "k-hat",
        "How heavy the tail of the weights is. Above 0.7 (or less, for few draws) a few draws may "
        "have nearly all the weight.",
    ),
    ("active unit", "A dimension of the code whose posterior mean depends on x."),
    ("KL", "How many nats q(z|x) is away from the prior: the cost of the code."),
    ("I(x; z)", "The mutual information: how many nats the code tells about an example."),
    ("bits per dimension", "-log2 p(x), divided by the number of values of an example."),
)
JACKKNIFE = (
    "JVI_K",
    "The jackknife estimate of log p(x) from the K draws of IWAE_K. It is closer to log p(x), but "
    "it is no bound.",
)


def terms_of(bounds: dict[str, Any]) -> list[tuple[str, str]]:
    """Return the terms that the page of a run uses.

    Args:
        bounds: the content of `bounds.json`; {} if the run was not evaluated.
    """
    unused = set() if "ais" in bounds else {"AIS"}
    unused |= set() if "bits_per_dim" in bounds else {"bits per dimension"}
    used = [term for term in TERMS if term[0] not in unused]
    if "jackknife" in bounds and bounds["num_samples"] > 1:
        used.insert(1 + [name for name, _ in used].index("IWAE_K"), JACKKNIFE)
    return used
