"""What the verbs that write files share: their options, how they start and stop, what they say."""

import contextlib
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, TypedDict

from jsonargparse import Namespace

from pyro_vae.errors import InputError
from pyro_vae.runs import command_line, joining, malloc, speaking
from pyro_vae.runs.parser import Parser, add_trust_code

if TYPE_CHECKING:
    from pyro_vae.runs.applying import Trained, Written

NUMBERS = ".csv, .parquet, .npz or .npy"
PICTURES = f"{NUMBERS}; of pictures also .png, a grid of them"
OPTIONS = {"x": "data", "y": "condition", "n": "count"}  # by arguments


class How(TypedDict):
    """What all functions that write files are told."""

    overwrite: bool
    progress: bool


def make_parser(description: str, suffixes: str, reads: bool = True) -> Parser:
    """Return a parser of what all verbs have: the run, what is read, and what is written."""
    made = Parser(
        description=f"{description} The data of training are not needed. The output is whole, or "
        "it is not there: if the command is interrupted, the same command continues (a .png starts "
        "again). What it has finished is in a hidden folder beside the output."
    )
    made.add_argument("run", help="The folder of a trained run.")
    if reads:
        made.add_argument(
            "--data",
            type=str,
            required=True,
            help="The rows: whatever can be trained on, such as a file or a folder of pictures. "
            "Columns of tables are found by their names. The output has the rows in this order.",
        )
    made.add_argument(
        "--out", type=str, required=True, help=f"The file to write; its name ends with {suffixes}."
    )
    made.add_argument(
        "--overwrite",
        action="store_true",
        help="Replace the file to write, if it exists, and discard what an interrupted command "
        "with other options has finished of it.",
    )
    command_line.add_device(made)
    add_trust_code(made)
    speaking.add_quiet(made)
    return made


def parsed(parser: Parser, arguments: Sequence[str] | None) -> Namespace:
    """Parse the command line of a verb; what is not understood ends the process with one line.

    Args:
        parser: the parser of the command line.
        arguments: its arguments; by default those of this process.
    """
    with command_line.one_line_errors():
        arguments = sys.argv[1:] if arguments is None else list(arguments)
        command_line.find_own_modules(arguments)
        return parser.parse_args(arguments)


def run(
    parser: Parser,
    arguments: Sequence[str] | None,
    what: str,
    work: "Callable[[Trained, Namespace, How], Written]",
) -> None:
    """Load a model, let it work, and say in one line what was done.

    Args:
        parser: the parser of the command line.
        arguments: its arguments; by default those of this process.
        what: the verb in the past, for the line.
        work: a function of the model, of the options, and of what all functions of
            `applying.files_of_rows` are told.
    """
    malloc.keep_freed()
    options = parsed(parser, arguments)

    from pyro_vae.runs import applying

    to_continue = f"- {options.out} was not written"
    if not options.out.lower().endswith(".png"):
        to_continue += ": the same command continues"
    with (
        command_line.one_line_errors(options, to_continue),
        joining.joined(),
        _named_like_options(),
    ):
        from pyro_vae.programs import ranks

        model = applying.load(options.run, options.device, trust_code=options.trust_code)
        how: How = {"overwrite": options.overwrite, "progress": speaking.shows_progress()}
        start = time.perf_counter()  # without the start of Python, and the loading of the model
        with ranks.together():
            written = work(model, options, how)
        if not ranks.is_first():
            return
        seconds = time.perf_counter() - start
        for note in written.notes:
            speaking.note(f"note: {note}")
        count = written.rows - written.before
        rows = f"{count:,}{' more' if written.before else ''} row{'s' if count != 1 else ''}"
        speaking.note(
            f"{what} {rows} in {seconds:.1f} s ({count / seconds:,.0f} a second): {options.out}"
        )


@contextlib.contextmanager
def _named_like_options() -> Iterator[None]:
    """Let errors name options of the command line, and not arguments of functions."""
    try:
        yield
    except InputError as error:
        error.parameter = OPTIONS.get(error.parameter or "", error.parameter)
        raise
