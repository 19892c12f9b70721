"""The terms that pages use, explained."""

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
