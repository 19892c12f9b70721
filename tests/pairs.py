"""Priors, each with a posterior that goes with it."""

from functools import partial

from pyro_vae import posteriors, priors

POSTERIORS = [
    posteriors.Normal,
    posteriors.FullNormal,
    posteriors.LowRankNormal,
    partial(posteriors.IAF, layers=1, hidden=4, context=2),
    partial(posteriors.SplineFlow, layers=1, hidden=4, context=2, bins=3),
]
REAL = [
    priors.StandardNormal,
    priors.LearnedNormal,
    priors.StudentT,
    priors.Laplace,
    priors.AR1,
    partial(priors.Mixture, components=3),
    partial(priors.Vamp, components=3),
    partial(priors.Exemplar, components=3),
    partial(priors.Flow, layers=1, hidden=4),
    priors.LARS,
]
PAIRS = [
    *[(prior, posteriors.Normal) for prior in REAL],
    *[(priors.StandardNormal, posterior) for posterior in POSTERIORS[1:]],
    (partial(priors.Vamp, components=3), POSTERIORS[3]),
    (priors.UniformSphere, posteriors.PowerSpherical),
    (priors.Bernoulli, posteriors.Bernoulli),
    (partial(priors.Categorical, categories=2), partial(posteriors.Categorical, categories=2)),
    (priors.Hierarchical, partial(posteriors.Hierarchical, top_dim=2, features=4)),
    (priors.Hierarchical, partial(posteriors.Ladder, top_dim=[2, 2], features=4)),
    (priors.Hierarchical, partial(posteriors.BottomUp, top_dim=[2, 2])),
]
