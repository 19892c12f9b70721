"""Posterior collapse: one verdict, its evidence, and what to try."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from pyro_vae.diagnostics.information import Information, measure
from pyro_vae.diagnostics.units import THRESHOLD, kl_per_unit, unit_means, unit_shares
from pyro_vae.programs.traces import Program

Verdict = Literal["healthy", "partly collapsed", "collapsed"]

LITTLE = 0.5  # nats: a code that says less of x, or is worth less to the decoder, does not matter


@dataclass(frozen=True)
class Probe:
    """How well a linear classifier reads labels off posterior means.

    Attributes:
        accuracy: on the test examples.
        se: its standard error.
        chance: the accuracy of always naming the most frequent label.
    """

    accuracy: float
    se: float
    chance: float


@dataclass(frozen=True)
class Diagnosis:
    """What `diagnose` found.

    Attributes:
        information: rate, distortion and mutual information.
        shares: of the variance of each dimension, that of its posterior mean, by the name of the
            site: see `unit_shares`.
        kl: of each dimension, in nats, by the name of the site; None where it cannot be shared out.
        probe: of labels, where there are any.
    """

    information: Information
    shares: dict[str, Tensor]
    kl: dict[str, Tensor | None]
    probe: Probe | None = None

    @property
    def units(self) -> int:
        """The number of dimensions, of all sites."""
        return sum(len(share) for share in self.shares.values())

    @property
    def active(self) -> int:
        """The number of those whose posterior mean moves with x."""
        return sum(int((share > THRESHOLD).sum()) for share in self.shares.values())

    @property
    def verdict(self) -> Verdict:
        """One of three words; see `judge`."""
        found = self.information
        return judge(
            self.active,
            self.units,
            found.mutual_information.mean().item(),
            found.gain.mean().item(),
        )

    def to_dict(self) -> dict[str, Any]:
        """Return what `diagnostics.json` holds; numbers in nats."""
        return {
            "unit": "nats",
            "num_examples": len(self.information.rate),
            "verdict": self.verdict,
            "active_units": self.active,
            "units": self.units,
            "advice": self.advice(),
            **self.information.to_dict(),
            "sites": {
                name: {
                    "share_of_means": _rounded(share),
                    "kl": None if self.kl[name] is None else _rounded(self.kl[name]),
                }
                for name, share in self.shares.items()
            },
            "probe": None if self.probe is None else vars(self.probe),
        }

    def advice(self) -> str:
        """Say what to try."""
        if self.verdict == "healthy":
            return "nothing to mend"
        if self.verdict == "collapsed":
            return (
                "keep the code free until it is used: KL warm-up (--objective.warmup), free bits "
                "(--objective.free_bits); or make the decoder need it: fewer layers or a smaller "
                "kernel, a SkipMLP"
            )
        return (
            "a smaller --latent_dim may do; for more units, free bits (--objective.free_bits), "
            "KL warm-up (--objective.warmup), or a prior that learns (--prior Vamp)"
        )

    def __str__(self) -> str:
        found = self.information
        word: str = self.verdict
        if word == "partly collapsed":
            word += f" ({self.units - self.active} of {self.units} units)"
        most = math.log(len(found.rate))
        # The KL is no less than I either, and of many nats it is the better bound.
        above = min(found.mutual_information_above, found.rate, key=lambda v: v.mean().item())
        parts = [
            f"{self.active} of {self.units} units are active",
            f"I(x; z) is between {_with_error(found.mutual_information)} and "
            f"{_with_error(above)} nats"
            + (
                f" (the first cannot be above log {len(found.rate)} = {most:.2f})"
                if found.mutual_information.mean() > 0.9 * most
                else ""
            ),
            f"the KL, {_with_error(found.rate)} nats, has {_with_error(found.marginal_kl)} "
            "of KL(q(z) || p(z)) in it",
            f"z is worth {_with_error(found.gain)} nats to the decoder, against z from the prior",
        ]
        if self.probe:
            parts.append(
                f"a linear probe of z reads {self.probe.accuracy:.1%} of the labels "
                f"({self.probe.chance:.1%} by chance)"
            )
        return f"The latent code is {word}: " + ";\n".join(parts) + f".\nTo try: {self.advice()}."


def judge(active: int, units: int, mutual_information: float, gain: float) -> Verdict:
    """Say how a latent code is.

    Args:
        active: how many dimensions have a posterior mean that moves with x.
        units: how many there are.
        mutual_information: I(x; z), in nats.
        gain: what z is worth to the decoder, in nats: see `Information.gain`.

    Returns:
        `collapsed` if no unit is active, or if the code says less than half a nat of x, or is worth
        less than that to the decoder; `partly collapsed` if some units are not active; `healthy` if
        all are.
    """
    if active == 0 or not (mutual_information >= LITTLE and gain >= LITTLE):  # NaN is no health
        return "collapsed"
    return "healthy" if active == units else "partly collapsed"


def diagnose(
    model: Program,
    guide: Program,
    x: Tensor,
    labelled: Sequence[tuple[Tensor, Tensor]] = (),
    seed: int = 0,
) -> Diagnosis:
    """Diagnose posterior collapse.

    Args:
        model: a Pyro program, called as `model(x)`, in evaluation mode.
        guide: a Pyro program, called as `guide(x)`.
        x: examples, shape [N, *event]; a thousand are plenty.
        labelled: examples and their labels, [M, *event] and [M], to train a probe on, and the same
            to test it on. Without them there is no probe.
        seed: of the draws.

    Raises:
        InputError: if there are too few examples, or plates beside that of the data.
    """
    devices = [x.device] if x.is_cuda else []
    with torch.random.fork_rng(devices):
        torch.manual_seed(seed)
        return Diagnosis(
            measure(model, guide, x, seed),
            unit_shares(guide, x),
            kl_per_unit(model, guide, x),
            probe(guide, *labelled) if labelled else None,
        )


def probe(
    guide: Program, train: tuple[Tensor, Tensor], test: tuple[Tensor, Tensor]
) -> Probe | None:
    """Read labels off posterior means by logistic regression.

    Args:
        guide: a Pyro program, called as `guide(x)`.
        train: examples [M, *event] and labels [M] to fit on.
        test: the same, to count on.

    Returns:
        What came of it; None if there is but one label.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    if len(train[1].unique()) < 2:
        return None
    codes = [
        torch.cat([mean for mean, _ in unit_means(guide, x).values()], 1).double().cpu().numpy()
        for x, _ in (train, test)
    ]
    labels = [label.cpu().numpy() for _, label in (train, test)]
    classifier = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    accuracy = float(classifier.fit(codes[0], labels[0]).score(codes[1], labels[1]))
    most = train[1].mode().values
    return Probe(
        accuracy,
        math.sqrt(accuracy * (1 - accuracy) / len(labels[1])),
        (test[1] == most).double().mean().item(),
    )


def _rounded(values: Tensor | None) -> list[float]:
    return [] if values is None else [round(value, 5) for value in values.tolist()]


def _with_error(values: Tensor) -> str:
    return f"{values.mean():.2f} ± {values.double().std() / len(values) ** 0.5:.2f}"
