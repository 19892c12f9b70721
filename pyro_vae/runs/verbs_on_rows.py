"""The verbs of `pyro-vae` that put a trained model to work on files.

Each has the command line of one function of `applying.files_of_rows`, and does what it does.
"""

import contextlib
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Literal

from jsonargparse import Namespace

from pyro_vae.bounds import Settings
from pyro_vae.errors import InputError
from pyro_vae.runs import command_line, malloc
from pyro_vae.runs.parser import Parser, add_trust_code

if TYPE_CHECKING:
    from pyro_vae.runs.applying import Trained, Written

NUMBERS = ".csv, .parquet, .npz or .npy"
OPTIONS = {"x": "data", "y": "condition", "n": "count"}  # by arguments


def score(arguments: Sequence[str] | None = None) -> None:
    """Write bounds on log p(x) of each row of a file.

    Args:
        arguments: the arguments of the command line; by default those of this process.
    """
    parser = _parser(
        "Write bounds on log p(x) of each row of a file: row (from 0), log_p (a lower bound in "
        "nats), mc_se (its Monte Carlo standard error), khat (Pareto k-hat), and percentile (among "
        "validation examples). Annealing adds upper, an upper bound, and its upper_mc_se.",
        NUMBERS,
    )
    parser.add_argument(
        "--method",
        type=Literal["importance", "ais"],
        default="importance",
        help="importance is IWAE_K; ais bounds log p(x) from both sides, by annealing.",
    )
    parser.add_argument(
        "--num_samples",
        type=int,
        default=100,
        help="K, the number of draws of z for each row. Below 100 there is no percentile.",
    )
    parser.add_class_arguments(Settings, "ais", help="The chains of annealing")

    def work(model: "Trained", options: Namespace) -> "Written":
        from pyro_vae.runs import applying

        anneals = options.method == "ais"
        return applying.score_file(
            model,
            options.data,
            options.out,
            options.num_samples,
            options.method,
            settings=parser.instantiate(options).ais if anneals else None,
            overwrite=options.overwrite,
            progress=_is_watched(),
        )

    _run(parser, arguments, "scored", work)


def encode(arguments: Sequence[str] | None = None) -> None:
    """Write the codes of each row of a file: mean and deviation of q(z|x).

    Args:
        arguments: the arguments of the command line; by default those of this process.
    """
    parser = _parser(
        "Write the codes of each row of a file: mean and scale of q(z|x). Tables have the columns "
        "mean_0, mean_1, .., scale_0, .., and with draws draw0_0, draw0_1, .., draw1_0, ..; .npz "
        "files the arrays mean and scale [N, D], and draw [N, draws, D].",
        NUMBERS,
    )
    parser.add_argument("--draws", type=int, default=0, help="The number of draws from q(z|x).")

    def work(model: "Trained", options: Namespace) -> "Written":
        from pyro_vae.runs import applying

        return applying.encode_file(
            model,
            options.data,
            options.out,
            options.draws,
            overwrite=options.overwrite,
            progress=_is_watched(),
        )

    _run(parser, arguments, "encoded", work)


def reconstruct(arguments: Sequence[str] | None = None) -> None:
    """Write what the model makes of the code of each row of a file.

    Args:
        arguments: the arguments of the command line; by default those of this process.
    """
    parser = _parser(
        "Write what p(x|z) makes of the code of each row of a file, in the data's own form: means "
        "of numbers, and the most probable categories.",
        f"{NUMBERS}; of pictures also .png, a grid of them",
    )

    def work(model: "Trained", options: Namespace) -> "Written":
        from pyro_vae.runs import applying

        return applying.reconstruct_file(
            model,
            options.data,
            options.out,
            overwrite=options.overwrite,
            progress=_is_watched(),
        )

    _run(parser, arguments, "reconstructed", work)


def impute(arguments: Sequence[str] | None = None) -> None:
    """Write the rows of a file with their missing values imputed.

    Args:
        arguments: the arguments of the command line; by default those of this process.
    """
    parser = _parser(
        "Write the rows of a file with their missing values imputed: means of numbers, and the "
        "most probable categories, given what is there. Observed values are unchanged. Arrays are "
        "called x, lower, upper [N, ..] and draw [N, draws, ..].",
        NUMBERS,
    )
    parser.add_argument(
        "--intervals",
        action="store_true",
        help="Add the ends of 90 % intervals of missing numbers, in the columns lower_NAME and "
        "upper_NAME. They are empty where a value is observed, and where the draws of a row are "
        "not reliable.",
    )
    parser.add_argument(
        "--draws",
        type=int,
        default=0,
        help="The number of multiple imputations, in the columns draw0_NAME, draw1_NAME, ..",
    )
    parser.add_argument(
        "--num_samples", type=int, default=1000, help="The number of draws of z for each row."
    )

    def work(model: "Trained", options: Namespace) -> "Written":
        from pyro_vae.runs import applying

        return applying.impute_file(
            model,
            options.data,
            options.out,
            options.num_samples,
            draws=options.draws,
            intervals=options.intervals,
            overwrite=options.overwrite,
            progress=_is_watched(),
        )

    _run(parser, arguments, "imputed", work)


def sample(arguments: Sequence[str] | None = None) -> None:
    """Write examples that are drawn from the model.

    Args:
        arguments: the arguments of the command line; by default those of this process.
    """
    parser = _parser(
        "Write examples that are drawn from the model, in the data's own form.",
        f"{NUMBERS}; of pictures also .png, a grid of them",
        reads=False,
    )
    parser.add_argument("--count", type=int, required=True, help="The number of examples.")
    parser.add_argument(
        "--condition",
        nargs="+",
        type=str,
        help="What the examples are given, if the model has conditions: NAME=VALUE for each "
        "column, or VALUE alone if there is one condition, such as the label.",
    )
    parser.add_argument(
        "--temperature",
        type=float,
        default=1.0,
        help="The factor of the deviations of p(z) from its mean. Below 1 examples are more "
        "typical and less diverse.",
    )
    parser.add_argument("--seed", type=int, default=0, help="The seed of the draws.")

    def work(model: "Trained", options: Namespace) -> "Written":
        from pyro_vae.runs import applying

        return applying.sample_file(
            model,
            options.count,
            options.out,
            _conditions(model, options.condition),
            options.temperature,
            seed=options.seed,
            overwrite=options.overwrite,
            progress=_is_watched(),
        )

    _run(parser, arguments, "drew", work)


def export(arguments: Sequence[str] | None = None) -> None:
    """Write encoder and decoder as programs that run without pyro_vae.

    Args:
        arguments: the arguments of the command line; by default those of this process.
    """
    parser = Parser(
        description="Write a folder with programs: features (x to its features), encoder "
        "(features to the parameters of q(z|x); for flows, features and noise to z), decoder (z to "
        "what is typical of p(x|z)), and model.json, which says what goes in and what comes out. "
        "They run where pyro_vae is not installed."
    )
    parser.add_argument("run", help="The folder of a trained run.")
    parser.add_argument("--out", type=str, required=True, help="The folder to make.")
    parser.add_argument(
        "--format",
        type=Literal["torch", "onnx"],
        default="torch",
        help="The programs are those of torch.export (.pt2), or of ONNX (.onnx), which takes pip "
        "install 'pyro_vae[onnx]'.",
    )
    parser.add_argument(
        "--overwrite", action="store_true", help="Replace the folder of an earlier export."
    )
    add_trust_code(parser)
    with command_line.one_line_errors():
        arguments = sys.argv[1:] if arguments is None else list(arguments)
        command_line.find_own_modules(arguments)
        options = parser.parse_args(arguments)

    from pyro_vae.runs import applying

    with (
        command_line.one_line_errors(options, f"- {options.out} was not written"),
        _stopped_like_interrupted(),
    ):
        model = applying.load(options.run, trust_code=options.trust_code)
        names = applying.export(model, options.out, options.format, overwrite=options.overwrite)
        print(f"exported {', '.join(names)}: {options.out}", file=sys.stderr)


def _parser(description: str, suffixes: str, reads: bool = True) -> Parser:
    """Return a parser of what all verbs have: the run, what is read, and what is written."""
    parser = Parser(
        description=f"{description} The data of training are not needed. The output is whole, or "
        "it is not there: if the command is interrupted, the same command continues (a .png starts "
        "again). What it has finished is in a hidden folder beside the output."
    )
    parser.add_argument("run", help="The folder of a trained run.")
    if reads:
        parser.add_argument(
            "--data",
            type=str,
            required=True,
            help="The rows: whatever can be trained on, such as a file or a folder of pictures. "
            "Columns of tables are found by their names. The output has the rows in this order.",
        )
    parser.add_argument(
        "--out", type=str, required=True, help=f"The file to write; its name ends with {suffixes}."
    )
    parser.add_argument(
        "--overwrite",
        action="store_true",
        help="Replace the file to write, if it exists, and discard what an interrupted command "
        "with other options has finished of it.",
    )
    command_line.add_device(parser)
    add_trust_code(parser)
    return parser


def _run(
    parser: Parser,
    arguments: Sequence[str] | None,
    what: str,
    work: "Callable[[Trained, Namespace], Written]",
) -> None:
    """Load a model, let it work, and say in one line what was done.

    Args:
        parser: the parser of the command line.
        arguments: its arguments; by default those of this process.
        what: the verb in the past, for the line.
        work: a function of the model and the options.
    """
    malloc.keep_freed()
    with command_line.one_line_errors():
        arguments = sys.argv[1:] if arguments is None else list(arguments)
        command_line.find_own_modules(arguments)
        options = parser.parse_args(arguments)

    from pyro_vae.runs import applying

    to_continue = f"- {options.out} was not written"
    if not options.out.lower().endswith(".png"):
        to_continue += ": the same command continues"
    with (
        command_line.one_line_errors(options, to_continue),
        _stopped_like_interrupted(),
        _named_like_options(),
    ):
        start = time.perf_counter()
        model = applying.load(options.run, options.device, trust_code=options.trust_code)
        written = work(model, options)
        seconds = time.perf_counter() - start
        for note in written.notes:
            print(f"note: {note}", file=sys.stderr)
        count = written.rows - written.before
        rows = f"{count:,}{' more' if written.before else ''} row{'s' if count != 1 else ''}"
        print(
            f"{what} {rows} in {seconds:.1f} s ({count / seconds:,.0f} a second): {options.out}",
            file=sys.stderr,
        )


def _is_watched() -> bool:
    """Return whether somebody may see a progress bar."""
    return sys.stderr.isatty()


@contextlib.contextmanager
def _stopped_like_interrupted() -> Iterator[None]:
    """Let SIGTERM end the work as Ctrl-C does, with another exit code."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, frame: Any) -> None:
        raise command_line.Terminated

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextlib.contextmanager
def _named_like_options() -> Iterator[None]:
    """Let errors name options of the command line, and not arguments of functions."""
    try:
        yield
    except InputError as error:
        error.parameter = OPTIONS.get(error.parameter or "", error.parameter)
        raise


def _conditions(model: "Trained", texts: list[str] | None) -> Any:
    """Return conditions as `Trained.sample` takes them.

    Args:
        model: the model.
        texts: what the command line gives: `NAME=VALUE` for each condition, or `VALUE` of a single
            one.
    """
    specs = {spec.name: spec for spec in model.form.conditions}
    if not texts or not specs:
        return texts or None
    found: dict[str, Any] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or (len(specs) == 1 and name not in specs):
            if len(specs) > 1 or len(texts) > 1:
                raise InputError(
                    f"{text} is not understood: give NAME=VALUE for {', '.join(specs)}", "condition"
                )
            name, value = next(iter(specs)), text
        if name not in specs:
            raise InputError(
                f"{name} is no condition of this model: give {', '.join(specs)}", "condition"
            )
        found[name] = value if specs[name].categories else _number(name, value)
    missing = [name for name in specs if name not in found]
    if missing:
        raise InputError(f"a value of {', '.join(missing)} is missing: give all", "condition")
    return found


def _number(name: str, text: str) -> float:
    try:
        return float(text)
    except ValueError as error:
        raise InputError(f"{name} is a number, and {text} is none", "condition") from error
