"""The command lines of the verbs of `pyro-vae`, and errors that are one line."""

import contextlib
import errno
import os
import re
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from jsonargparse import Namespace

from pyro_vae.errors import DivergenceError, InputError
from pyro_vae.runs import joining, speaking, trust
from pyro_vae.runs.parser import TRUST, Parser, add_trust_code
from pyro_vae.runs.plan import Plan

# Options that may change on resume: the place of the data, the length of training, how often it is
# saved, the device, where its metrics are shown, and the effort of the evaluation.
CHANGEABLE = (
    *("data", "data_root", "epochs", "budget", "patience", "checkpoint_minutes"),
    *("device", "log", "num_samples", "num_examples"),
)
NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # the disk is full, or a limit is reached


def parse_training(arguments: Sequence[str] | None = None) -> Namespace:
    """Parse the command line of training.

    A run that is resumed keeps the options that it was started with, except for those in
    `CHANGEABLE`.

    Args:
        arguments: the arguments of the command line; by default those of this process.

    Raises:
        InputError: if the command line is not understood.
    """
    from pyro_vae.runs import training_help

    arguments = sys.argv[1:] if arguments is None else list(arguments)
    training_help.refuse_misspelt(arguments)

    from pyro_vae.runs import config  # it imports PyTorch, which takes seconds

    find_own_modules(arguments)
    now = config.parse(arguments)
    if now.resume is None:
        return now
    if now.config or now.out:
        raise InputError(
            "--resume continues with the run's own configuration, in its own folder: leave out "
            "--config and --out"
        )
    path = Path(now.resume) / "config.yaml"
    before = config.read(path, now.trust_code)
    now = config.parse([f"--config={path}", *arguments])
    for name in config.NAMES:
        if name not in CHANGEABLE and before[name] != now[name]:
            raise InputError(f"--{name} cannot change when a run is resumed: start a new run")
    return now


def parse_evaluation(arguments: Sequence[str] | None = None) -> Namespace:
    """Parse the command line of an evaluation: the run's folder, and the options of `Plan`.

    Args:
        arguments: the arguments of the command line; by default those of this process.

    Raises:
        InputError: if the command line is not understood.
    """
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    find_own_modules(arguments)
    return _evaluation_parser().parse_args(arguments)


def make_plan(options: Namespace) -> Plan:
    """Return the plan that the command line of an evaluation describes.

    Raises:
        InputError: if a value is not allowed.
    """
    values = vars(_evaluation_parser().instantiate(options))
    return Plan(**{name: values[name] for name in Plan.__dataclass_fields__})


def _evaluation_parser() -> Parser:
    parser = Parser(description="Evaluate a trained run again: bounds on log p(x), diagnostics.")
    parser.add_argument(
        "run",
        help="The run's folder. Its bounds, diagnostics and their figures are replaced. Pyro "
        "programs of your own are evaluated instead by --programs FILE.py:FUNCTION.",
    )
    for name, meaning in (
        ("num_samples", "K, the number of draws of z for each test example"),
        ("num_examples", "The number of test examples, chosen at random"),
    ):
        parser.add_argument(
            f"--{name}", type=int | None, help=f"{meaning}; by default the run's own."
        )
    parser.add_class_arguments(Plan, as_group=False)
    parser.add_argument(
        "--data",
        type=str | None,
        help="Where the run's own data are now, if they were moved. Others are refused: pyro-vae "
        "score bounds log p(x) of new data.",
    )
    parser.add_argument(
        "--data_root",
        type=str | None,
        help="Where the folder of torchvision's data sets is now, if it was moved.",
    )
    add_device(parser)
    add_trust_code(parser)
    speaking.add_quiet(parser)
    parser.examples = (
        "pyro-vae evaluate runs/vamp --num_samples 5000",
        "pyro-vae evaluate runs/vamp --method ais --num_examples 100",
        "pyro-vae evaluate --programs my_file.py:make --data x.npy --trust_code",
    )
    return parser


def add_device(parser: Parser) -> None:
    """Add the option `--device` to a parser."""
    parser.add_argument(
        "--device", default="auto", help="Where to compute: auto, cpu, cuda, or cuda:1 and so on."
    )


def parse_comparison(arguments: Sequence[str] | None = None) -> Namespace:
    """Parse the command line of a comparison.

    Args:
        arguments: the arguments of the command line; by default those of this process.

    Raises:
        InputError: if the command line is not understood, or names both runs and groups.
    """
    parser = Parser(
        description="Compare runs by paired differences to the first, on the same test examples."
    )
    parser.add_argument("runs", nargs="*", default=[], help="The folders of two or more runs.")
    parser.add_argument(
        "--group",
        action="append",
        help="Instead of single runs, the runs of one kind with different seeds: a quoted pattern "
        "of their folders such as 'runs/vamp-*', or NAME=PATTERN. Repeat it for each group. "
        "Differences to the first group have errors over seeds and examples.",
    )
    parser.add_argument(
        "--figure",
        type=str | None,
        help="A file for a figure of the differences, such as forest.png.",
    )
    parser.add_argument(
        "--report",
        type=str | None,
        help="A file for a page about the comparison, such as comparison.html. It is replaced if "
        "it exists.",
    )
    speaking.add_quiet(parser)
    parser.examples = (
        "pyro-vae compare runs/normal runs/vamp --figure forest.png --report comparison.html",
        "pyro-vae compare --group 'runs/normal-*' --group 'runs/vamp-*'",
    )
    options = parser.parse_args(arguments)
    if options.runs and options.group:
        raise InputError(
            f"{options.runs[0]} is in no group: put each pattern after --group in quotes, and name "
            "no other runs"
        )
    return options


def parse_report(arguments: Sequence[str] | None = None) -> Namespace:
    """Parse the command line that makes the page of a run again.

    Args:
        arguments: the arguments of the command line; by default those of this process.

    Raises:
        InputError: if the command line is not understood.
    """
    parser = Parser(
        description="Make report.html again from the files in a run's folder. Neither its data nor "
        "its model is needed."
    )
    parser.add_argument("run", help="The folder of a run.")
    speaking.add_quiet(parser)
    parser.examples = ("pyro-vae report runs/vamp",)
    return parser.parse_args(arguments)


class Terminated(KeyboardInterrupt):
    """The process was asked to end, by SIGTERM."""


@contextlib.contextmanager
def one_line_errors(
    options: Namespace | None = None, if_interrupted: Callable[[], str] | str = ""
) -> Iterator[None]:
    """Print errors that the user can correct as one line, and exit with code 2.

    After an interruption the code is 130, and after SIGTERM 143.

    Args:
        options: the script's options, once they are parsed. An `InputError` that names an argument
            is printed with the option of that name.
        if_interrupted: what to do after an interruption, printed in that case, and if the disk is
            full; or a function that returns it.
    """
    try:
        with _stopped_like_interrupted():
            yield
    except (InputError, DivergenceError, OSError) as error:
        raised = _without_shapes(error)
        message = " ".join(str(raised).split())
        if isinstance(raised, OSError) and raised.errno in NO_SPACE:
            message = f"{message} {_text(if_interrupted)}".rstrip()
        if joining.speaks(error):
            print(f"error: {message}{_option_to_change(raised, message, options)}", file=sys.stderr)
        sys.exit(2)
    except (MemoryError, RuntimeError) as error:
        if not (isinstance(error, MemoryError) or re.search("allocate|out of memory", str(error))):
            raise
        print(
            "error: there is not enough memory for these options: choose smaller numbers, such as "
            "batch_size, num_samples or the sizes of the networks",
            file=sys.stderr,
        )
        sys.exit(2)
    except KeyboardInterrupt as error:
        print(f"\ninterrupted {_text(if_interrupted)}".rstrip(), file=sys.stderr)
        sys.exit(143 if isinstance(error, Terminated) else 130)


class _Stop:
    """The handler of SIGINT and SIGTERM; it knows the first signal that came."""

    came: int | None = None

    def __call__(self, number: int, frame: Any) -> None:
        self.came = self.came or number
        raise _interruption(number)


def _interruption(number: int) -> KeyboardInterrupt:
    return Terminated() if number == signal.SIGTERM else KeyboardInterrupt()


def _text(text: Callable[[], str] | str) -> str:
    return text if isinstance(text, str) else text()


@contextlib.contextmanager
def _stopped_like_interrupted() -> Iterator[None]:
    """Let SIGTERM end the work as Ctrl-C does, with another exit code.

    A library that is being imported may swallow an interruption, half of it missing. The error that
    follows is one of the interruption.
    """
    stop = signal.getsignal(signal.SIGTERM)
    before: dict[int, Any] = {}
    if threading.current_thread() is threading.main_thread() and stop == signal.SIG_DFL:
        stop = _Stop()
        before = {signal.SIGTERM: signal.signal(signal.SIGTERM, stop)}
        if signal.getsignal(signal.SIGINT) != signal.SIG_IGN:  # a shell's background job ignores it
            before[signal.SIGINT] = signal.signal(signal.SIGINT, stop)
    try:
        yield
    except (InputError, DivergenceError, OSError):
        raise
    except Exception as error:
        if isinstance(stop, _Stop) and stop.came is not None:
            raise _interruption(stop.came) from error
        raise
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _without_shapes(error: BaseException) -> BaseException:
    """Return the error that a program raised: Pyro raises it again, with shapes below its message.

    Pyro's copy has no `parameter`.
    """
    cause = error.__cause__
    if isinstance(cause, InputError):
        added = str(error).removeprefix(f"{cause}\n").lstrip()
        return _without_shapes(cause) if added.startswith("Trace Shapes:") else error
    return error


def _option_to_change(error: BaseException, message: str, options: Namespace | None) -> str:
    """Return the option of the argument that an error names, in brackets; "" if there is none.

    It is the option of that name, or else all nested options whose last part is that name.
    """
    parameter = getattr(error, "parameter", None)
    if parameter is None or options is None:
        return ""
    names = {key.replace(".init_args", "").removesuffix(".class_path") for key in options.keys()}
    names |= {name.partition(".")[0] for name in names}
    if parameter in names:
        matches = [parameter]
    else:
        matches = sorted(name for name in names if name.rpartition(".")[2] == parameter)
    if not matches or any(f"--{name}" in message for name in matches):
        return ""
    return f" (option {' or '.join(f'--{name}' for name in matches)})"


def find_own_modules(arguments: Sequence[str]) -> None:
    """Let users name their own classes by import path, from the folder that they are in.

    Python finds modules in the current folder only if the user names such a class himself, or
    trusts the code that a file names. That folder may be a stranger's.
    """
    if f"--{TRUST}" in arguments or trust.types_names_of_others(arguments):
        sys.path.append(os.getcwd())
