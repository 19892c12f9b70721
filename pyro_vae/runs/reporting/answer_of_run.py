"""The answer of a run: its number, whether to believe it, whether the model is all right."""

import contextlib
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pyro_vae.errors import InputError
from pyro_vae.runs.reporting import answer, next_steps, rounding
from pyro_vae.runs.reporting.answer import Finding, Headline
from pyro_vae.runs.reporting.next_steps import Step
from pyro_vae.runs.reporting.run_files import RunFiles

WIDTH = 96  # characters in a line of text
INDENT = "  "


@contextlib.contextmanager
def readable(run: RunFiles) -> Iterator[None]:
    """Read results inside this context.

    Raises:
        InputError: if `bounds.json` or `diagnostics.json` do not hold what an evaluation writes.
    """
    try:
        yield
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        raise InputError(
            f"{run.folder} has results that cannot be read: evaluate the run again"
        ) from error


@dataclass(frozen=True)
class Answer:
    """What a person wants to know first, and what to do next.

    Attributes:
        headline: the number that the run is made for; None if it was not evaluated.
        findings: the answers to questions about it.
        step: what is worth trying next.
        warning: why the model is not to be used; "" if it is.
    """

    headline: Headline | None
    findings: list[Finding]
    step: Step
    warning: str

    @classmethod
    def of(cls, run: RunFiles) -> "Answer":
        """Return the answer that the files of a run hold."""
        found: dict[str, Finding] = {}
        if run.bounds:
            found["bound"] = answer.tightness(run.bounds)
        if run.diagnostics:
            found["code"] = answer.code(run.diagnostics)
        checks = answer.checks(run.bounds) if run.bounds else None
        if checks is not None:
            found["checks"] = checks
        headline = answer.headline(run.bounds, run.options) if run.bounds else None
        warning = run.bounds.get("warning", "")
        return cls(headline, list(found.values()), next_steps.next_step(run, found), warning)

    def as_text(self, where: str) -> str:
        """Return the answer as lines for a terminal.

        Args:
            where: what to open for all the rest.
        """
        lines = [self.warning, ""] if self.warning else []
        if self.headline is not None:
            head = self.headline
            about = [sentence for sentence in head.about if sentence != self.warning]
            lines += [
                f"{head.what} {head.value} nats",
                *_wrapped([f"(95 % interval {head.interval}).", *about]),
            ]
        for finding in self.findings:
            lines += ["", f"{finding.question} {finding.word}.", *_wrapped(finding.sentences)]
        lines += ["", f"Where to look: {where}"]
        lines += ["", f"What to do next: {self.step.why}"]
        lines += textwrap.indent(self.step.command, INDENT).splitlines()
        return rounding.plain("\n".join(lines))


def _wrapped(sentences: list[str]) -> list[str]:
    # Spaces that do not break keep a number beside its unit.
    return textwrap.wrap(
        " ".join(sentences),
        WIDTH,
        initial_indent=INDENT,
        subsequent_indent=INDENT,
        break_long_words=False,
        break_on_hyphens=False,
    )


def last_screen(folder: Path, results: Path) -> str:
    """Return the answer of a run, as a command prints it at its end.

    Args:
        folder: the run's folder, as the user names it.
        results: the folder of the evaluation's results: the run's own if it is the fullest one.
    """
    run = RunFiles.read(folder, results)
    where = f"open {folder / 'report.html'} in a browser"
    if results != folder:
        where = f"the results are in {results}; {folder} keeps those of a fuller evaluation"
    with readable(run):
        return "\n" + Answer.of(run).as_text(where)
