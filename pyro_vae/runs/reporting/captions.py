"""Titles, captions and alternative texts of the figures of a run."""

from dataclasses import dataclass, replace
from typing import Any

from pyro_vae.runs.reporting.page_parts import ShownFigure
from pyro_vae.runs.reporting.rounding import percent
from pyro_vae.runs.reporting.run_files import RunFiles


@dataclass(frozen=True)
class Caption:
    """What a page says of a figure.

    Attributes:
        section: the section of the page in which the figure is shown.
        title: a title of a few words.
        text: how to read the figure.
        alt: what it shows, for those who do not see it.
        is_chart: whether it consists of lines on white.
    """

    section: str
    title: str
    text: str
    alt: str
    is_chart: bool = True


# By the names of files, in the order in which a section shows them.
CAPTIONS = {
    "training": Caption(
        "training",
        "Training",
        "The training objective and the ELBO of the validation examples, after each epoch. The "
        "star marks the epoch whose parameters were kept.",
        "Two curves over epochs: the training objective and the validation bound, in nats.",
    ),
    "bounds": Caption(
        "bounds",
        "The ladder of bounds",
        "Left: IWAE with more and more draws approaches log p(x) from below; bars and bands are "
        "95 % Monte Carlo intervals, and errors in numbers are one standard error. Right: Pareto "
        "k-hat of the weights of each example. Weights to the right of the dashed line cannot be "
        "relied on.",
        "Left, a curve of IWAE bounds that rises with the number of draws, above the ELBO. "
        "Right, a histogram of k-hat over examples.",
    ),
    "reconstructions": Caption(
        "seen",
        "Reconstructions",
        "Test examples, and below each the mean of p(x|z) for one draw of z from q(z|x).",
        "Two rows of pictures: test examples, and their reconstructions below them.",
        is_chart=False,
    ),
    "samples": Caption(
        "seen",
        "Samples",
        "Each picture is the mean of p(x|z) for one draw of z from the prior.",
        "A grid of pictures decoded from draws of the prior.",
        is_chart=False,
    ),
    "classes": Caption(
        "seen",
        "Samples of each class",
        "A row for each class y: means of p(x|z, y) for draws of z from the prior.",
        "A grid of decoded pictures with a row for each class.",
        is_chart=False,
    ),
    "interpolation": Caption(
        "seen",
        "Interpolation",
        "Each row goes from the code of one test example to the code of another one, in equal "
        "steps.",
        "Rows of decoded pictures that change from one test example into another.",
        is_chart=False,
    ),
    "traversals": Caption(
        "seen",
        "Traversals",
        "One test example, decoded while one unit of its code moves from -2 to 2 standard "
        "deviations. A row for each active unit, the most active one first. Units are counted from "
        "0: z[2] is mean_2 of pyro-vae encode.",
        "Rows of decoded pictures, one for each active unit of the code.",
        is_chart=False,
    ),
    "manifold": Caption(
        "seen",
        "The whole code",
        "Codes on a grid over both dimensions of z, at evenly spaced quantiles of N(0, 1).",
        "A square grid of decoded pictures over the two dimensions of the code.",
        is_chart=False,
    ),
    "rows": Caption(
        "seen",
        "Reconstructed rows",
        "Test rows, and below each the mean of p(x|z) for one draw of z from q(z|x); of "
        "categories, the most probable one. At most eight columns are shown.",
        "A table of test rows with a reconstruction below each.",
    ),
    "units": Caption(
        "code",
        "What each unit carries",
        "The KL of each unit of the code, the largest first. A unit is active if its posterior "
        "mean depends on x. Units are counted from 0.",
        "Bars for the units of the code, by their KL in nats, from the largest to the smallest.",
    ),
    "extremes": Caption(
        "examples",
        "Hard examples",
        "Above: the test examples with the lowest log p(x). Below: those with the loosest ELBO, "
        "the one furthest below IWAE. Their order is that of the tables.",
        "Two rows of test examples: those of lowest likelihood, and those with the loosest ELBO.",
        is_chart=False,
    ),
    "predictive": Caption(
        "checks",
        "Statistics of drawn examples",
        "Statistics of examples drawn from the model, and of the test examples. Where the two "
        "differ, the model lacks something. The difference of their means has one standard error "
        "(se) beside it.",
        "Histograms of statistics, of the data and of examples drawn from the model.",
    ),
    "columns": Caption(
        "checks",
        "Columns",
        "Distributions of the columns in the test examples and in rows drawn from the model. The "
        "worst ones come first.",
        "Histograms of columns, of the data and of rows drawn from the model.",
    ),
    "pairs": Caption(
        "checks",
        "Pairs of columns",
        "Pairs of columns in the test examples and in rows drawn from the model. Those whose "
        "rank correlations differ most come first.",
        "Scatter plots of pairs of columns, of the data and of rows drawn from the model.",
    ),
    "programs": Caption(
        "programs",
        "The two Pyro programs",
        "What depends on what, as Pyro sees it when the programs run. Shaded sites are observed; "
        "the box is the plate of the examples.",
        "Graphs of the sites of the model and of the guide.",
    ),
}


SHARES = (
    "The share of the variance of each unit of the code that x explains, the largest first; the "
    "KL of single units is not known with this prior or posterior. A unit is active if its "
    "posterior mean depends on x. Units are counted from 0."
)
SHARES_ALT = "Bars for the units of the code, by the share of variance that x explains."


def shown(run: RunFiles, section: str) -> list[ShownFigure]:
    """Return the figures of a section, as far as they exist."""
    captions = {name: _of_run(run, name) for name in CAPTIONS if name in run.pictures}
    return [
        ShownFigure(run.pictures[name], each.title, each.text, each.alt, each.is_chart)
        for name, each in captions.items()
        if each.section == section
    ]


def _of_run(run: RunFiles, name: str) -> Caption:
    """Return the caption of a figure, with what is true of this run only."""
    caption = CAPTIONS[name]
    if name == "units":
        sites = run.diagnostics.get("sites", {}).values()
        if any(site["kl"] is None for site in sites):
            return replace(caption, text=SHARES, alt=SHARES_ALT)
    if name == "training":
        return replace(caption, text=caption.text + _about_warmup(run.options.get("objective")))
    return caption


def _about_warmup(objective: Any) -> str:
    """Return a sentence about the KL's warm-up, for whoever sees the objective fall."""
    arguments = objective.get("init_args") if isinstance(objective, dict) else None
    if not isinstance(arguments, dict):
        return ""
    epochs, share = arguments.get("warmup"), arguments.get("warmup_share")
    if epochs:
        length = "epoch" if epochs == 1 else f"{epochs:g} epochs"
    elif share:
        length = f"{percent(share)} of training"
    else:
        return ""
    return (
        f" In the first {length} the weight of the KL in the objective rises (warm-up), so the "
        "objective may fall there: that is no failure."
    )
