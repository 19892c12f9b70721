"""The tables of a run's page, from `bounds.json`, `diagnostics.json` and `metrics.csv`."""

from collections.abc import Iterable
from typing import Any

from pyro_vae.runs.reporting import rounding
from pyro_vae.runs.reporting.answer import information_above, of_all
from pyro_vae.runs.reporting.page_parts import Cell, Table
from pyro_vae.runs.reporting.rounding import error, interval, not_negative, value, with_error

HEAD = ("nats", "mean", "se", "95 % interval", "MC error")
IMPORTANCE = ("elbo", "iwae", "gap", "jackknife", "khat", "ess")  # keys of the first result
NO_RESULTS = (*IMPORTANCE, "examples", "conditions", "extremes", "checks")

PATHS = (
    "The last rows say how smooth the code is. On a path, the code of one example changes evenly "
    "into that of another, and is decoded in steps. If the example changes evenly, too, the path "
    "is as long as the straight line, and all its steps are equal. A nearest neighbour of an "
    "example is kept if its code is one of the nearest neighbours of the example's code."
)

Row = tuple[str, dict[str, Any]]


def ladder(bounds: dict[str, Any], evidence: str) -> Table:
    """Return the table of the importance bounds.

    Args:
        bounds: the content of `bounds.json`.
        evidence: what they are bounds on, as in "log p(x)".
    """
    k = str(bounds["num_samples"])
    rows: list[Row] = [("ELBO", bounds["elbo"][k])]
    rows += [(f"IWAE_{each}", summary) for each, summary in bounds["iwae"].items() if each != "1"]
    rows.append((f"IWAE_{k} - ELBO", bounds["gap"][k]))
    if "jackknife" in bounds and int(k) > 1:
        rows.append((f"JVI_{k} (no bound)", bounds["jackknife"][k]))
    return Table(f"Lower bounds on {evidence}", HEAD, [_summary(*row) for row in rows])


def other_results(bounds: dict[str, Any]) -> Iterable[Table]:
    """Return a table for each other result, such as that of annealing, whatever it is called."""
    for name, result in bounds.items():
        if name in NO_RESULTS or not _is_result(result):
            continue
        if name == "refined":
            k = str(result["num_samples"])
            rows = [("ELBO", result["elbo"][k]), (f"IWAE_{k}", result["iwae"][k])]
        elif "mean" in result:
            rows = [("mean over all", result)]
        else:
            rows = [(str(key), part) for key, part in result.items() if _is_summary(part)]
        yield Table(
            _title(name, result, bounds["num_examples"]), HEAD, [_summary(*row) for row in rows]
        )


def units(diagnostics: dict[str, Any]) -> Table | None:
    """Return the table of the units of the code: KL and share of variance, the largest first.

    Units are counted from 0, as in the columns of `pyro-vae encode`.
    """
    rows = []
    sites = diagnostics.get("sites", {})
    for site, content in sites.items():
        kls = content["kl"] or [None] * len(content["share_of_means"])
        rows += [
            (f"{site}[{place}]", kl, share)
            for place, (kl, share) in enumerate(zip(kls, content["share_of_means"], strict=True))
        ]
    if not rows:
        return None
    rows.sort(key=lambda row: -(row[2] if row[1] is None else row[1]))
    return Table(
        "Units of the code",
        ("unit", "KL, nats", "variance that x explains"),
        [
            (
                Cell(name, place),
                _number(not_negative(kl), 1e-2),
                Cell(rounding.percent(max(0.0, share)), share),
            )
            for place, (name, kl, share) in enumerate(rows)
        ],
    )


def about_code(diagnostics: dict[str, Any]) -> Table:
    """Return the table of what is known about the code as a whole."""
    known = {**diagnostics, "above": information_above(diagnostics)}
    rows = [
        (words, _with_error(known.get(name)))
        for name, words in (
            ("rate", "KL from q(z|x) to the prior, nats"),
            ("mutual_information", "I(x; z) at least, nats"),
            ("above", "I(x; z) at most, nats"),
            ("marginal_kl", "KL from q(z) to p(z) at most, nats"),
            ("gain", "gain in log p(x|z) from the code, nats"),
        )
    ]
    probe = diagnostics.get("probe")
    if probe:
        chance = rounding.percent(probe["chance"])
        rows.append(
            (
                f"labels that a linear probe of z predicts ({chance} by chance), percent",
                Cell(with_error(100 * probe["accuracy"], 100 * probe["se"])),
            )
        )
    smooth = diagnostics.get("smoothness") or {}
    rows += [
        (words, _with_error(smooth[name]))
        for name, words in (
            ("detour", "length of a path, in lengths of the straight line (1 or more)"),
            ("jump", "longest step of a path, in mean steps (1 or more)"),
            ("neighbours", "nearest neighbours that are kept in the code, share"),
        )
        if smooth.get(name)
    ]
    return Table(
        "The code as a whole",
        ("quantity", "mean ± se"),
        [row for row in rows if row[1].text != rounding.UNKNOWN],
        lead=PATHS if smooth else "",
    )


def checks(bounds: dict[str, Any]) -> Table:
    """Return the table of the predictive checks."""
    return Table(
        "Examples drawn from the model, compared with test examples",
        ("statistic", "model minus data", "se", "p-value"),
        [
            (
                name,
                _number(each["difference"], each["se"]),
                Cell(error(each["se"]), each["se"]),
                Cell(rounding.p_value(each["p_value"]), each["p_value"]),
            )
            for name, each in bounds["checks"].items()
        ],
        note="The p-value is that of the Kolmogorov-Smirnov test; it says whether the "
        "distributions differ, not only their means.",
    )


def imputation(found: dict[str, Any]) -> Table:
    """Return the table of how well hidden values are imputed."""
    level = rounding.percent(found["level"])
    rows = [
        (words, _with_error(found[name]))
        for name, words in (
            ("log_density", "log p of a hidden value, nats"),
            ("squared_error", "squared error, in units of a column's variance"),
            ("accuracy", "categories that are right, share"),
            ("coverage", f"{level} intervals that cover the value, share"),
        )
        if found.get(name)
    ]
    values, examples = found["num_values"], found["num_rows"]
    return Table(
        f"Imputation of {rounding.count(values, 'hidden value')} in "
        f"{rounding.count(examples, 'example')}",
        ("quantity", "mean ± se"),
        rows,
    )


def classes(found: dict[str, Any]) -> Table:
    """Return the table of how well examples are classified by Bayes' rule."""
    return Table(
        f"Classes of {rounding.count(found['num_examples'], 'test example')} by Bayes' rule",
        ("quantity", "mean ± se"),
        [
            ("examples that are classified right, share", _with_error(found["accuracy"])),
            ("log-loss, nats", _with_error(found["log_loss"])),
            ("decisions within the Monte Carlo error", f"{found['unsure']:,}"),
            ("decisions whose error is unknown", f"{found['unknown']:,}"),
        ],
    )


def hard_examples(bounds: dict[str, Any]) -> Iterable[Table]:
    """Return the tables of the examples of lowest likelihood, and of those with loose bounds."""
    for name, title in (
        ("lowest", "The lowest log p(x)"),
        ("loosest", "The ELBO furthest below IWAE"),
    ):
        found = bounds.get("extremes", {}).get(name, [])
        if not found:
            continue
        columns = list(found[0]["values"])
        words = [0, *(5 + i for i, column in enumerate(columns) if _are_words(found, column))]
        yield Table(
            title,
            ("test example", "log p(x)", "ELBO", "gap", "k-hat", *columns),
            [
                (
                    Cell(f"{each['example']:,}", each["example"]),
                    Cell(value(each["log_p"], 0.1), each["log_p"]),
                    Cell(value(each["elbo"], 0.1), each["elbo"]),
                    _number(not_negative(each["gap"]), 0.1),
                    _number(each["khat"], 0.1),
                    *(str(each["values"][column]) for column in columns),
                )
                for each in found
            ],
            words=words,
        )


def history(rows: list[dict[str, str]]) -> Table:
    """Return the table of the epochs."""
    names = [name for name in rows[0] if any(row.get(name) for row in rows)]
    return Table(
        "Epochs",
        [name.replace("_", " ") for name in names],
        [[_from_text(name, row.get(name, "")) for name in names] for row in rows],
    )


def _summary(name: str, summary: dict[str, Any]) -> list[Cell]:
    mean, se, mc_se = (summary.get(key) for key in ("mean", "se", "mc_se"))
    ends = summary.get("ci95")
    return [
        Cell(name),
        _number(mean, se),
        Cell(error(se), se),
        Cell(interval(ends, se), ends[0] if ends else None),
        Cell(error(mc_se), mc_se),
    ]


def _title(name: str, result: dict[str, Any], total: int) -> str:
    number = result.get("num_examples")
    of = rounding.count(number, "example") if isinstance(number, int) else ""
    titles = {
        "gaps": "How far the ELBO is below log p(x), and why",
        "simulated": f"Bounds for {of} drawn from the model",
        "refined": f"Bounds for {of}, with q(z|x) refined for each of them",
        "whole": f"The tightest bound, for all {of}",
        "ais": f"AIS of {of_all(number, total) if isinstance(number, int) else 'examples'}",
    }
    return titles.get(name, f"{name} of {of}" if of else name)


def _is_summary(part: Any) -> bool:
    return isinstance(part, dict) and "mean" in part and "se" in part and "ci95" in part


def _is_result(part: Any) -> bool:
    if not isinstance(part, dict):
        return False
    return _is_summary(part) or "iwae" in part or any(map(_is_summary, part.values()))


def _are_words(rows: list[dict[str, Any]], column: str) -> bool:
    """Return whether a column has a value that is no number, and is not missing."""
    for row in rows:
        text = str(row["values"][column]).replace(",", "")
        if text != "missing" and not text.lstrip("-").replace(".", "", 1).isdigit():
            return True
    return False


def _number(number: float | None, its_error: float | None) -> Cell:
    return Cell(value(number, its_error), number)


def _with_error(summary: dict[str, Any] | None) -> Cell:
    if not summary or summary["mean"] is None:
        return Cell(rounding.UNKNOWN)
    # All of these quantities but log-densities are zero or more; below zero is noise.
    mean, se = summary["mean"], summary["se"]
    is_noise = mean < 0 and se is not None and mean > -4 * se
    return Cell(with_error(0.0 if is_noise else mean, se), mean)


def _from_text(name: str, text: str) -> Cell:
    """Return a cell of what `metrics.csv` holds, which may be no number."""
    try:
        number = float(text)
    except ValueError:
        return Cell(text)
    whole = number.is_integer() and "." not in text
    return Cell(f"{int(number):,}" if whole else value(number, 0.01), number)
