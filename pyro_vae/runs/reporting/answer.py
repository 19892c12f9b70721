"""What was found in a run, in sentences: log p(x), how tight its bound is, and how the model is."""

from dataclasses import dataclass
from typing import Any, Literal

from pyro_vae.runs.reporting import rounding
from pyro_vae.runs.reporting.rounding import count, interval, not_negative, percent, with_error

Status = Literal["good", "care", "bad", "unknown"]

NOT_RELIABLE = 0.05  # the share of examples with a high k-hat above which IWAE_K counts as loose
RARE = 0.01  # p-values below this, divided by the number of checks, are a difference


@dataclass(frozen=True)
class Headline:
    """The number that a run is made for.

    Attributes:
        what: what the number is.
        value: the number, in nats.
        interval: its 95 % interval over examples.
        about: sentences about it.
    """

    what: str
    value: str
    interval: str
    about: list[str]


@dataclass(frozen=True)
class Finding:
    """The answer to one question.

    Attributes:
        question: the question.
        status: how good the answer is.
        word: the answer in a word or two.
        sentences: what it is based on.
        anchor: the section of the page that has more.
    """

    question: str
    status: Status
    word: str
    sentences: list[str]
    anchor: str


def evidence_of(options: dict[str, Any]) -> str:
    """Return what the bounds are bounds on, as people write it."""
    return "log p(x|y)" if options.get("condition") else "log p(x)"


def tightest(bounds: dict[str, Any]) -> tuple[str, dict[str, Any], int]:
    """Return the tightest lower bound: its name, its summary, and its number of examples."""
    total = bounds["num_examples"]
    if "whole" in bounds:
        name = [*bounds["conditions"]][-1]
        return name.upper(), bounds["whole"], total
    if "ais" in bounds:
        return "AIS", bounds["ais"]["lower"], bounds["ais"]["num_examples"]
    k = str(bounds["num_samples"])
    return f"IWAE_{k}", bounds["iwae"][k], total


def headline(bounds: dict[str, Any], options: dict[str, Any]) -> Headline:
    """Return the number that the run is made for.

    Args:
        bounds: the content of `bounds.json`.
        options: the run's options.
    """
    name, summary, number = tightest(bounds)
    about = [bounds["warning"]] if "warning" in bounds else []
    about += [
        f"By {name}, a lower bound, on {count(number, 'test example')} ({bounds['support']})."
    ]
    bits = bounds.get("bits_per_dim")
    if bits is not None:
        about.append(f"At most {rounding.value(bits)} bits per dimension.")
    observed = bounds.get("observed_values")
    if observed:
        mean = sum(observed) / len(observed)
        about.append(
            f"It is that of the observed values: {min(observed)} to {max(observed)} of "
            f"{bounds['dims']} in an example, {mean:.1f} on average."
        )
    se = summary["se"]
    return Headline(
        what=f"The mean {evidence_of(options)} of an example is at least",
        value=rounding.value(summary["mean"], se),
        interval=rounding.interval(summary["ci95"], se),
        about=about,
    )


def tightness(bounds: dict[str, Any]) -> Finding:
    """Say how far below log p(x) the tightest bound may be, and whether to believe it."""
    question, anchor = "Can the number be believed?", "bounds"
    k = str(bounds["num_samples"])
    gap = bounds["gap"][k]
    elbo = f"The ELBO is {with_error(not_negative(gap['mean']), gap['se'])} nats below IWAE_{k}."
    if "ais" in bounds:
        return Finding(question, *_bracket(bounds["ais"], bounds["num_examples"]), anchor)
    khat = bounds["khat"]
    if khat["median"] is None:
        words = f"{count(bounds['num_samples'], 'draw')} are too few to tell how loose IWAE_{k} is."
        return Finding(question, "unknown", "Unknown", [words, elbo], anchor)
    share = percent(khat["share_above"]) if khat["share_above"] else "none"
    few = f", the limit for {k} draws," if khat["good"] < 0.7 else ""
    above = f"Pareto k-hat is above {khat['good']:.2g}{few} on {share} of the examples"
    unknown = bounds["iwae"][k]["mc_se"] is None
    if khat["share_above"] >= NOT_RELIABLE or unknown:
        error = "its Monte Carlo error is unknown" if unknown else "it can be far below log p(x)"
        words = f"{above}: IWAE_{k} may be loose, and {error}."
        return Finding(question, "care", "Only as a lower bound", [words, elbo], anchor)
    loose, se = not_negative(bounds["looseness"]), bounds["iwae"][k]["se"]
    if loose is None:
        words = f"{above}, but how far IWAE_{k} is below log p(x) is unknown."
        return Finding(question, "care", "Only as a lower bound", [words, elbo], anchor)
    shown = "less than 0.001" if loose < 1e-3 else f"about {loose:.2g}"
    words = f"{above}: IWAE_{k} is {shown} nats below log p(x), to first order."
    # As with a bracket: it has to be close beside what is due to the choice of examples.
    if se is not None and loose > se:
        return Finding(question, "care", "Only as a lower bound", [words, elbo], anchor)
    return Finding(question, "good", "Yes, the bound is tight", [words, elbo], anchor)


def _bracket(ais: dict[str, Any], total: int) -> tuple[Status, str, list[str]]:
    """Return the status, the word and the sentences for bounds from both sides."""
    lower, upper = ais["lower"], ais["upper"]
    flaw = ais["upper_flaw"]
    if flaw or lower["mean"] is None or upper["mean"] is None:
        reason = f"The upper bound of AIS cannot be relied on: {flaw or 'it is not finite'}."
        return "care", "Only as a lower bound", [reason]
    width = max(0.0, upper["mean"] - lower["mean"])
    examples = of_all(ais["num_examples"], total)
    reach = f"AIS bounds log p(x) of {examples} from both sides"
    # The bracket has to be narrow beside what is due to the choice of examples.
    if lower["se"] is not None and width > lower["se"]:
        words = f"{reach}, but the two are {rounding.error(width)} nats apart."
        return "care", "Within a wide bracket", [words]
    apart = "less than 0.01" if width < 0.01 else rounding.error(width)
    words = f"{reach}: the two are {apart} nats apart."
    return "good", "Yes, bounded from both sides", [words]


def of_all(number: int, total: int) -> str:
    """Return how many of the evaluated examples something is about, as in `all 179 examples`."""
    if number == total:
        return f"all {count(number, 'example')}" if number > 1 else "the one example"
    return f"{number:,} of the {count(total, 'example')}"


def code(diagnostics: dict[str, Any]) -> Finding:
    """Say whether the latent code is used."""
    verdict = diagnostics["verdict"]
    active, units = diagnostics["active_units"], diagnostics["units"]
    gain = diagnostics["gain"]
    gained = with_error(not_negative(gain["mean"]), gain["se"])
    sentences = [
        f"The code carries {information(diagnostics)} nats about an example.",
        f"It raises log p(x|z) by {gained} nats, compared with z from the prior.",
    ]
    status: Status = "bad"
    if verdict != "collapsed":
        status = "good" if verdict == "healthy" else "care"
    word = {
        "healthy": f"Yes, {units} of {units} units" if units > 1 else "Yes",
        "partly collapsed": f"Partly: {active} of {units} units",
        "collapsed": "No, it has collapsed",
    }.get(verdict, verdict)
    return Finding("Is the code used?", status, word, sentences, "code")


def information(diagnostics: dict[str, Any]) -> str:
    """Return the mutual information I(x; z) in nats, from its two bounds.

    The bounds are estimates. Where noise puts the lower one above the upper one, or they agree
    within their errors, it is one number.
    """
    below, above = diagnostics["mutual_information"], information_above(diagnostics)
    low, high = not_negative(below["mean"]), not_negative(above["mean"])
    if low is None or high is None:
        return rounding.UNKNOWN
    error = max(below["se"] or 0.0, above["se"] or 0.0)  # the coarser one is that of both ends
    if high - low <= error:
        return f"about {with_error((low + high) / 2, error)}"
    return interval((low, high), error)


def information_above(diagnostics: dict[str, Any]) -> dict[str, Any]:
    """Return the tighter upper bound on I(x; z): its own, or the KL from q(z|x) to the prior.

    With a prior that depends on conditions, the KL is no bound on the information.
    """
    above: dict[str, Any] = diagnostics["mutual_information_above"]
    rate: dict[str, Any] = diagnostics["rate"]
    known = [each["mean"] for each in (diagnostics["marginal_kl"], rate, above)]
    return rate if None not in known and rate["mean"] < above["mean"] else above


def checks(bounds: dict[str, Any]) -> Finding | None:
    """Say whether examples drawn from the model look like the data; None if there are none."""
    found = {
        name: each["p_value"]
        for name, each in bounds.get("checks", {}).items()
        if each["p_value"] is not None
    }
    if not found:
        return None
    differ = [name for name, p in found.items() if p < RARE / len(found)]
    what = f"Of {count(len(found), 'check')} on drawn examples"
    question = "Do drawn examples look like the data?"
    if not differ:
        words = [f"{what}, none differs from the test examples."]
        return Finding(question, "good", "No difference was found", words, "checks")
    shown = ", ".join(differ[:4]) + (", .." if len(differ) > 4 else "")
    verb = "differs" if len(differ) == 1 else "differ"
    words = [f"{what}, {len(differ)} {verb} from the test examples: {shown}."]
    return Finding(
        question, "care", f"Not in {len(differ)} of {len(found)} checks", words, "checks"
    )
