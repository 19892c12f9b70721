"""Options of a run as text: parsed from arguments, read from `config.yaml`, and written to it."""

import functools
from collections.abc import Sequence
from dataclasses import MISSING, fields
from pathlib import Path

from jsonargparse import Namespace

from pyro_vae import data
from pyro_vae.errors import InputError
from pyro_vae.runs import bounded_yaml, trust
from pyro_vae.runs.options import Options
from pyro_vae.runs.parser import TRUST, Parser, add_starting_options

NAMES = tuple(Options.__dataclass_fields__)
BY_KIND = "pyro_vae.likelihoods.ByKind"  # the class path of a likelihood that was not named
# Likelihoods around another one: for data with conditions, and with missing values.
ADDED = ("pyro_vae.likelihoods.Given", "pyro_vae.likelihoods.ObservedEntries")
WITH_VALUE = tuple(f.name for f in fields(Options) if f.default not in (None, MISSING))
# Files of older versions lack these, and those that may have no value.
NEWER = (
    *("batch_doublings", "schedule", "optimizer", "validate_by", "validate_every"),
    "checkpoint_minutes",
)
REQUIRED = tuple(name for name in WITH_VALUE if name not in NEWER)


def parser(trust_code: bool = False) -> Parser:
    """Return a parser of the options of a run, and of those that start or resume one.

    Args:
        trust_code: whether files of options may name classes that are not in this package.
    """
    result = Parser(description="Train a VAE by SVI, and bound log p(x) on held-out data.")
    result.trust_code = trust_code
    add_starting_options(result)
    result.add_class_arguments(Options, as_group=False)
    return result


@functools.cache
def _unchanged_parser() -> Parser:
    """Return one parser for all that only read from it: to make one takes a tenth of a second."""
    return parser()


def parse(arguments: Sequence[str], trust_code: bool = False) -> Namespace:
    """Parse options. A class that is named has its own defaults.

    jsonargparse would pass the default class's arguments to the named class, such as `ELBO`'s
    single particle to `IWAE`.

    Args:
        arguments: of the command line.
        trust_code: whether files of options may name classes that are not in this package.
            `--trust_code` among the arguments says so too.

    Raises:
        InputError: if an argument is not understood, or an option has no value, or a file names
            a class that is not in this package.
    """
    trust_code = trust_code or f"--{TRUST}" in arguments
    given = parser(trust_code).parse_args(arguments, defaults=False)
    result = parser(trust_code)
    for name in NAMES:
        part = given.get(name)
        if isinstance(part, Namespace) and "class_path" in part:
            result.set_defaults({name: {"class_path": part.class_path}})
    namespace = result.parse_args(arguments)
    for name in WITH_VALUE:
        if namespace[name] is None:
            raise InputError(f"--{name} has no value: give one, or leave the option out")
    return namespace


def read(path: Path, trust_code: bool = False) -> Namespace:
    """Read the options that a run was started with.

    Args:
        path: a run's `config.yaml`.
        trust_code: whether it may name classes that are not in this package.

    Raises:
        InputError: if there is no such file, or it lacks an option, or it names a class that is
            not in this package.
    """
    if not path.exists():
        raise InputError(f"{path.parent} is not the folder of a run: there is no {path.name} in it")
    options = bounded_yaml.load(bounded_yaml.read(path))
    missing = [name for name in REQUIRED if options.get(name) is None]
    if missing:
        raise InputError(f"{path} is not complete: it lacks {', '.join(missing)}")
    return parse([f"--config={path}"], trust_code)


def instantiate(namespace: Namespace) -> Options:
    """Make options from what was parsed.

    Raises:
        InputError: if a value is not allowed.
    """
    name = str(namespace.likelihood.get("class_path"))
    if name in ADDED:
        raise InputError(
            f"{name.rpartition('.')[2]} is added to the likelihood where the data need it: name "
            "the likelihood of whole examples",
            "likelihood",
        )
    values = vars(_unchanged_parser().instantiate(namespace))
    return Options(**{name: values[name] for name in NAMES})


def dump(namespace: Namespace) -> str:
    """Return YAML from which the same options are parsed again, in any folder."""
    options = {name: namespace[name] for name in NAMES}
    options["data_root"] = str(Path(options["data_root"]).resolve())
    if options["data"] not in data.SOURCES:  # it is a file
        options["data"] = str(Path(options["data"]).resolve())
    return _unchanged_parser().dump(Namespace(**options, config=None), skip_unset=True)


def needs_trust(namespace: Namespace) -> bool:
    """Return whether options name code that is not in this package."""
    return any(trust.names_of_others(bounded_yaml.load(dump(namespace))))


def edited(before: str, now: str, changeable: Sequence[str]) -> str:
    """Say which option of a run was edited; "" if none was.

    Args:
        before: the options when the run was saved, as `dump` returns them; "" if they are unknown.
        now: the options now. Those that only one of the two has are of another version.
        changeable: the names of options that may change.
    """
    old, new = (_leaves(bounded_yaml.load(text)) if text else {} for text in (before, now))
    for name, value in old.items():
        if name.partition(".")[0] not in changeable and new.get(name, value) != value:
            return f"{name.replace('init_args.', '')} was {value} and is {new[name]}"
    return ""


def _leaves(options: object, name: str = "") -> dict[str, object]:
    """Return the values of nested options by their names, with dots between them."""
    if not isinstance(options, dict):
        return {name: options}
    return {
        path: value
        for key, each in options.items()
        for path, value in _leaves(each, f"{name}.{key}".strip(".")).items()
    }
