"""The page of a run, `report.html`, from the files in the run's folder alone."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from pyro_vae import checkpoint
from pyro_vae.runs.reporting import answer, captions, next_steps, run_tables
from pyro_vae.runs.reporting.answer_of_run import Answer, readable
from pyro_vae.runs.reporting.page_parts import Section, Table, render
from pyro_vae.runs.reporting.run_files import RunFiles
from pyro_vae.runs.reporting.terms import terms_of

NAME = "report.html"


def write(folder: Path) -> Path:
    """Write the page of a run into its folder.

    Args:
        folder: the run's folder, as the user names it: commands on the page name it so.

    Returns:
        The page's path.

    Raises:
        InputError: if the folder is no run, or one of its files is damaged.
    """
    page = make(RunFiles.read(folder))
    checkpoint.write(folder / NAME, page.encode())
    return folder / NAME


def make(run: RunFiles) -> str:
    """Return the page of a run.

    Raises:
        InputError: if `bounds.json` or `diagnostics.json` do not hold what an evaluation writes.
    """
    with readable(run):
        found = Answer.of(run)
        sections = _sections(run)
    return render(
        "run.html",
        title=run.folder.resolve().name,
        subtitle=_subtitle(run),
        headline=found.headline,
        findings=found.findings,
        step=found.step,
        sections=[section for section in sections if not section.is_empty],
        command=next_steps.repeat(run),
        versions=run.versions,
        config=run.config,
        terms=terms_of(run.bounds),
    )


def _subtitle(run: RunFiles) -> str:
    """Return what was trained, in a line."""
    parts = [
        f"{run.part(part)} {part}"
        for part in ("prior", "likelihood", "posterior", "objective")
        if run.part(part)
    ]
    data = Path(str(run.options.get("data", ""))).name
    dims = run.options.get("latent_dim")
    return ", ".join([data, *([f"{dims} latent dimensions"] if dims else []), *parts])


def _advice(run: RunFiles) -> list[str]:
    """Return what the diagnosis advises; [] if nothing needs to change."""
    if not run.diagnostics or run.diagnostics["verdict"] == "healthy" or "warning" in run.bounds:
        return []
    return [f"To try: {run.diagnostics['advice']}."]


def _sections(run: RunFiles) -> list[Section]:
    """Return the sections of the page, in their order. Those without content are empty."""

    def figures(name: str) -> list[Any]:
        return captions.shown(run, name)

    bounds, diagnostics = run.bounds, run.diagnostics
    evidence = answer.evidence_of(run.options)

    def tables(there: Any, make: Callable[[Any], Table | None]) -> list[Table]:
        table = make(there) if there else None
        return [table] if table else []

    hard = list(run_tables.hard_examples(bounds))
    return [
        Section(
            "training",
            "Training",
            parts=figures("training"),
            hidden=tables(run.history, run_tables.history),
        ),
        Section(
            "bounds",
            f"Bounds on {evidence}",
            parts=[
                *figures("bounds"),
                *tables(bounds, lambda found: run_tables.ladder(found, evidence)),
                *run_tables.other_results(bounds),
            ],
        ),
        Section("seen", "What the model has learned", parts=figures("seen")),
        Section(
            "code",
            "The latent code",
            _advice(run),
            parts=[*figures("code"), *tables(diagnostics, run_tables.about_code)],
            hidden=tables(diagnostics, run_tables.units),
        ),
        Section(
            "examples",
            "Hard examples",
            ["Examples are counted from 0 in the test set. Numbers are nats."] if hard else [],
            parts=[*figures("examples"), *hard],
        ),
        Section(
            "checks",
            "Predictive checks",
            parts=[
                *figures("checks"),
                *(tables(bounds, run_tables.checks) if bounds.get("checks") else []),
                *tables(diagnostics.get("imputation"), run_tables.imputation),
                *tables(diagnostics.get("classes"), run_tables.classes),
            ],
        ),
        Section("programs", "The graphical model", parts=figures("programs")),
    ]
