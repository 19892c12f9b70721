"""Posterior collapse: one verdict, the evidence for it, and advice."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from pyro_vae.diagnostics.information import PART, Information, measure_pair
from pyro_vae.diagnostics.local_codes import look_at_codes
from pyro_vae.diagnostics.means import amount_as_text
from pyro_vae.diagnostics.units import THRESHOLD, kl_per_unit_of_pair, unit_means, unit_shares
from pyro_vae.programs.arguments import Arguments
from pyro_vae.programs.random_streams import preserve_rng_state
from pyro_vae.programs.traces import Program

Verdict = Literal["healthy", "partly collapsed", "collapsed"]

NEGLIGIBLE = 0.5  # nats: the information, or the gain, of a code that counts as collapsed


@dataclass(frozen=True)
class Probe:
    """The accuracy of a linear classifier that predicts labels from posterior means.

    Attributes:
        accuracy: the accuracy on the test examples.
        se: its standard error.
        chance: the accuracy of always predicting the most frequent label.
    """

    accuracy: float
    se: float
    chance: float


@dataclass(frozen=True)
class Diagnosis:
    """What `diagnose` returns.

    Attributes:
        information: rate, distortion and mutual information.
        shares: the share of the variance of each dimension that is the variance of its posterior
            mean, by the name of the site: see `unit_shares`.
        kl: the KL of each dimension, in nats, by the name of the site; None where it is not a sum
            over dimensions.
        probe: the probe of labels, if there are labels.
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
        """The number of dimensions whose posterior mean depends on x."""
        return sum(int((share > THRESHOLD).sum()) for share in self.shares.values())

    @property
    def verdict(self) -> Verdict:
        """The verdict of `judge`."""
        return judge(
            self.active,
            self.units,
            self.information.mutual_information.mean().item(),
            self.information.gain.mean().item(),
        )

    def to_dict(self) -> dict[str, Any]:
        """Return what `diagnostics.json` holds; numbers are in nats."""
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
        """Return what to try next."""
        if self.verdict == "healthy":
            return "nothing needs to change"
        if self.verdict == "collapsed":
            return (
                "make the code cheap until the decoder uses it, by a KL warm-up or a longer one "
                "(warmup of the objective) or free bits (free_bits of the objective); or make the "
                "decoder depend on it: fewer layers, a smaller kernel, or the decoder SkipMLP"
            )
        return (
            "a smaller latent_dim may be enough; to use more units, try free bits (free_bits of "
            "the objective), a KL warm-up or a longer one (warmup of the objective), or a learned "
            "prior such as Vamp"
        )

    def __str__(self) -> str:
        verdict: str = self.verdict
        if verdict == "partly collapsed":
            verdict += f" ({self.units - self.active} of {self.units} units)"
        lines = [self._active_units(), *self._information_lines()]
        if self.probe:
            lines.append(
                f"a linear probe of z predicts {100 * self.probe.accuracy:.1f} % of the labels "
                f"({100 * self.probe.chance:.1f} % by chance)"
            )
        evidence = ";\n".join(lines)
        return f"The latent code is {verdict}: {evidence}.\nTo try: {self.advice()}."

    def _active_units(self) -> str:
        if self.verdict == "collapsed" and self.active:
            return (
                f"the posterior means of {self.active} of {self.units} units depend on x, but tell "
                "the decoder almost nothing"
            )
        return f"{self.active} of {self.units} units are active"

    def _information_lines(self) -> list[str]:
        information = self.information
        below = information.mutual_information
        above = information.mutual_information_above
        kl = f"the KL from q(z|x) to p(z|y) is {amount_as_text(information.rate)} nats"
        if not information.prior_is_conditional:
            # The KL is an upper bound on I too, and for a code of many nats it is the tighter one.
            above = min(above, information.rate, key=lambda v: v.mean().item())
            kl = (
                f"of the KL's {amount_as_text(information.rate)} nats, KL(q(z) || p(z)) is at "
                f"most {amount_as_text(information.marginal_kl)}"
            )
        limit = math.log(len(information.rate))
        near_limit = (
            f" (the first cannot be above log {len(information.rate)} = {limit:.2f})"
            if below.mean() > 0.9 * limit
            else ""
        )
        between = f"between {amount_as_text(below)} and {amount_as_text(above)}"
        if below.mean() > above.mean():  # by noise
            between = f"about {amount_as_text(above)}"
        return [
            f"I(x; z) is {between} nats{near_limit}",
            kl,
            f"z from q(z|x) raises log p(x|z) by {amount_as_text(information.gain)} nats, "
            "compared with z from the prior",
        ]


def judge(active: int, units: int, mutual_information: float, gain: float) -> Verdict:
    """Return the verdict on a latent code.

    Args:
        active: the number of dimensions whose posterior mean depends on x.
        units: the number of dimensions.
        mutual_information: I(x; z), in nats.
        gain: the gain of the decoder from z, in nats: see `Information.gain`.

    Returns:
        `collapsed` if no unit is active, or if the mutual information or the gain is below half a
        nat; `partly collapsed` if some units are not active; `healthy` if all are.
    """
    informative = mutual_information >= NEGLIGIBLE and gain >= NEGLIGIBLE  # false for NaN
    if active == 0 or not informative:
        return "collapsed"
    return "healthy" if active == units else "partly collapsed"


def diagnose(
    model: Program,
    guide: Program,
    x: Any,
    labelled: Sequence[tuple[Any, Tensor]] = (),
    seed: int = 0,
    *,
    plate: str | None = None,
) -> Diagnosis:
    """Diagnose posterior collapse.

    Args:
        model: a Pyro program, in evaluation mode, whose latent sites are all in the plate of the
            examples.
        guide: a Pyro program, the model's guide, which draws the latent sites themselves.
        x: the data, which both programs are called with: a tensor, a tuple, which is spread into
            positional arguments, or `Arguments`. A thousand examples are enough.
        labelled: two pairs of data for the guide and labels [M]: the first to fit a probe, the
            second to test it. Without them there is no probe.
        seed: seed of the draws.
        plate: the name of the plate of the examples; by default it is found.

    Raises:
        InputError: if there are too few examples, or the latent sites are no code of single
            examples that can be diagnosed: see `measure` and `unit_means`.
    """
    arguments = Arguments.of(x)
    pair = look_at_codes(model, guide, arguments, plate, PART)
    with preserve_rng_state(arguments):
        torch.manual_seed(seed)
        return Diagnosis(
            measure_pair(pair, arguments, seed),
            unit_shares(guide, arguments, plate=plate),
            kl_per_unit_of_pair(pair, arguments),
            probe(guide, *labelled, plate=plate) if labelled else None,
        )


def probe(
    guide: Program,
    train: tuple[Any, Tensor],
    test: tuple[Any, Tensor],
    *,
    plate: str | None = None,
) -> Probe | None:
    """Predict labels from posterior means by logistic regression.

    Args:
        guide: a Pyro program, as in `unit_means`.
        train: data for the guide and labels [M], to fit the classifier.
        test: the same, to measure its accuracy.
        plate: the name of the plate of the examples; by default it is found.

    Returns:
        The accuracy; None if all labels are the same.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    if len(train[1].unique()) < 2:
        return None
    codes = [
        torch.cat([mean for mean, _ in unit_means(guide, x, plate=plate).values()], 1)
        .double()
        .cpu()
        .numpy()
        for x, _ in (train, test)
    ]
    labels = [label.cpu().numpy() for _, label in (train, test)]
    classifier = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    accuracy = float(classifier.fit(codes[0], labels[0]).score(codes[1], labels[1]))
    most_frequent = train[1].mode().values
    return Probe(
        accuracy,
        math.sqrt(accuracy * (1 - accuracy) / len(labels[1])),
        (test[1] == most_frequent).double().mean().item(),
    )


def _rounded(values: Tensor | None) -> list[float]:
    return [] if values is None else [round(value, 5) for value in values.tolist()]
