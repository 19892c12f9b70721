"""The command `pyro-vae`: its verbs, each a function of the arguments that follow it.

To add a verb, write a function and name it in `VERBS`. A function imports what it needs when it is
called, so that the help of every verb is quick.
"""

import contextlib
import datetime
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from jsonargparse import Namespace

from pyro_vae.runs import command_line, joining, malloc, speaking, verbs_on_models, verbs_on_rows

if TYPE_CHECKING:
    from pyro_vae.runs.plan import Plan
    from pyro_vae.runs.run import Run

WILD = 3  # the exit code of a training that ends with a worse model than it began with
Verb = Callable[[Sequence[str] | None], None]


def train(arguments: Sequence[str] | None = None) -> None:
    """Train a VAE by SVI, and bound log p(x) on held-out data.

    Args:
        arguments: the arguments of the command line; by default those of this process.
    """
    malloc.keep_freed()
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    if arguments in (["--help"], ["-h"]):
        from pyro_vae.runs import training_help

        print(training_help.page(), end="")
        sys.exit(0)
    with command_line.one_line_errors():
        options = command_line.parse_training(arguments)
    started = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
    name = Path(options.data).stem
    folder = Path(options.resume or options.out or f"runs/{name}-{started}")

    def to_continue() -> str:
        from pyro_vae.runs import config

        if not folder.exists():
            return "- nothing was written: the same command begins again"
        trust = f" --{config.TRUST}" if config.needs_trust(options) else ""
        return f"- continue with: pyro-vae train --resume {folder}{trust}"

    with command_line.one_line_errors(options, to_continue), joining.joined():
        from pyro_vae.programs import ranks

        made = joining.made_before()
        folder = made or ranks.from_first(folder)
        if made:
            options = command_line.parse_training(joining.going_on(arguments, made))
        _train(folder, options)


def _train(folder: Path, options: Namespace) -> None:
    """Train and evaluate as the options say; of several processes, the first writes and prints."""
    from pyro_vae.programs import ranks
    from pyro_vae.runs import files
    from pyro_vae.runs.applying.held_folder import held
    from pyro_vae.runs.run import Run

    with contextlib.ExitStack() as locks:
        if options.resume and ranks.is_first():
            locks.enter_context(held(folder, folder, None))
        run = Run.build(folder, options)
        if options.resume:
            run.resume()
        else:
            run.create()
            joining.remember_made(folder)
            if ranks.is_first():
                locks.enter_context(held(folder, folder))
        if ranks.is_first():
            speaking.note(str(run))
        history = run.fit()
        if ranks.is_first():
            files.write_training(run, history)
        _measure(run)
        if run.warning:
            ranks.wait_for_all()  # torchrun ends all processes when the first of them ends
            sys.exit(WILD)


def _measure(run: "Run", plan: "Plan | None" = None) -> None:
    """Evaluate a run, which one group of processes at a time does; write the results.

    The answer is printed; before it, if there is a plan, the tables of all that was measured.
    """
    from pyro_vae.programs import ranks
    from pyro_vae.runs import evaluation, files, results_folder
    from pyro_vae.runs.applying.held_folder import held
    from pyro_vae.runs.model_diagnostics import UNFINISHED
    from pyro_vae.runs.report import report as as_text
    from pyro_vae.runs.reporting.answer_of_run import last_screen

    with contextlib.ExitStack() as locks:
        if ranks.is_first():
            locks.enter_context(held(run.folder / UNFINISHED, run.folder, None))
            results_folder.settle(run.folder)
        with ranks.together():
            result = evaluation.evaluate(run, plan)
        if ranks.is_first():
            place = files.write_evaluation(run, result)
            if plan is not None:
                print(as_text(run, result))
            print(last_screen(run.folder, place))


def evaluate(arguments: Sequence[str] | None = None) -> None:
    """Evaluate a trained run again: bounds on log p(x) of its test examples, and diagnostics.

    Args:
        arguments: the arguments of the command line; by default those of this process.
    """
    malloc.keep_freed()
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    if any(argument.partition("=")[0] == "--programs" for argument in arguments):
        from pyro_vae.runs import foreign_programs

        with command_line.one_line_errors():
            parser = foreign_programs.parser()
            asked = parser.parse_args(arguments)
        with command_line.one_line_errors(asked), joining.joined():
            found = foreign_programs.evaluate(parser.instantiate(asked))
            if joining.rank() == 0:
                print(found)
        return
    with command_line.one_line_errors():
        options = command_line.parse_evaluation(arguments)

    from pyro_vae.runs.run import Run

    stopped = "- the same command continues where it stopped"
    with command_line.one_line_errors(options, stopped), joining.joined():
        plan = command_line.make_plan(options)
        run = Run.open(
            options.run,
            trust_code=options.trust_code,
            data=options.data,
            data_root=options.data_root,
            device=options.device,
            num_samples=options.num_samples,
            num_examples=options.num_examples,
        )
        _measure(run, plan)


def compare(arguments: Sequence[str] | None = None) -> None:
    """Compare runs on the same test examples, by paired differences of their bounds on log p(x).

    Args:
        arguments: the arguments of the command line; by default those of this process.
    """
    with command_line.one_line_errors():
        options = command_line.parse_comparison(arguments)

    from pyro_vae.runs import results_folder
    from pyro_vae.runs.comparison import compare_codes, compare_runs
    from pyro_vae.runs.reporting import comparison_page
    from pyro_vae.runs.run_groups import compare_run_groups

    with command_line.one_line_errors(options):
        if options.group:
            groups = compare_run_groups(options.group)
            tightest = next(iter(groups.by_bound.values()))
            print(f"{groups}\n\n{comparison_page.verdict(tightest, 'group')}")
            if options.figure:
                groups.draw(Path(options.figure))
            if options.report:
                from pyro_vae.runs.reporting import groups_page

                groups_page.write(Path(options.report), options.group, groups)
                print(f"Where to look: open {options.report} in a browser")
            return
        for folder in options.runs:
            results_folder.settle(Path(folder))
        comparison = compare_runs(options.runs)
        verdict = comparison_page.verdict(comparison.comparison, "run")
        print(f"{comparison}\n\n{compare_codes(options.runs)}\n\n{verdict}")
        if options.figure:
            comparison.draw(Path(options.figure))
        if options.report:
            comparison_page.write(Path(options.report), options.runs, comparison)
            print(f"Where to look: open {options.report} in a browser")


def report(arguments: Sequence[str] | None = None) -> None:
    """Make the page of a run again, from the files in its folder.

    Args:
        arguments: the arguments of the command line; by default those of this process.
    """
    with command_line.one_line_errors():
        options = command_line.parse_report(arguments)

    from pyro_vae.runs import results_folder
    from pyro_vae.runs.reporting import run_page

    with command_line.one_line_errors(options):
        results_folder.settle(Path(options.run))
        print(run_page.write(Path(options.run)))


VERBS: dict[str, Verb] = {
    "train": train,
    "evaluate": evaluate,
    "compare": compare,
    "report": report,
    "score": verbs_on_rows.score,
    "encode": verbs_on_rows.encode,
    "reconstruct": verbs_on_rows.reconstruct,
    "sample": verbs_on_models.sample,
    "impute": verbs_on_rows.impute,
    "export": verbs_on_models.export,
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a verb.

    Args:
        arguments: a verb and its own arguments; by default those of this process.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    verb = arguments[0] if arguments else "--help"
    if verb in VERBS:
        sys.argv[0] = f"pyro-vae {verb}"  # the help shows it
        with command_line.one_line_errors():  # also while the verb imports what it needs
            joining.check(verb)
            VERBS[verb](arguments[1:])
    elif verb == "--version":
        print(f"pyro-vae {version('pyro_vae')}")
    elif verb in ("--help", "-h"):
        print(_usage())
    else:
        print(f"error: there is no verb {verb}: choose {', '.join(VERBS)}", file=sys.stderr)
        sys.exit(2)


def _usage() -> str:
    width = max(map(len, VERBS))
    lines = [
        f"  {name.ljust(width)}  {(verb.__doc__ or '').splitlines()[0]}"
        for name, verb in VERBS.items()
    ]
    return "\n".join(
        ["usage: pyro-vae VERB ..", "", *lines, "", "pyro-vae VERB --help lists its options."]
    )
