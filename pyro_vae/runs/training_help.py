"""The help of `pyro-vae train`, and what is misspelt in its arguments, at once.

Importing the classes of the options takes seconds. So the options are read from the source of
`Options`, and the classes are the names that the packages of parts import.
"""

import ast
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from docstring_parser import parse

from pyro_vae.errors import InputError
from pyro_vae.runs import trust
from pyro_vae.runs.parser import TRUST, Parser, add_starting_options, no_class, typed_options
from pyro_vae.runs.part_names import PARTS, part_names, source
from pyro_vae.runs.spelling import did_you_mean, similar

USED_MOST = ("data", "latent_dim", "prior", "likelihood", "posterior", "objective", "epochs")
FILES = (".csv", ".tsv", ".npy", ".npz", ".pt", ".parquet", ".h5ad")  # suffixes of data


class Described(NamedTuple):
    """An option: its name, what it means, its default value as text, and its choices, if listed."""

    name: str
    meaning: str
    default: str
    choices: str | None


def page() -> str:
    """Return the help of training: the most used options first."""
    return _parser().format_help()


def refuse_misspelt(arguments: Sequence[str]) -> None:
    """Refuse options, classes and files that do not exist, before anything large is imported.

    What passes is still checked by the parser of `config`, and by the readers of data.

    Args:
        arguments: of the command line.

    Raises:
        InputError: if there is no such option, class, or file.
    """
    parser, unknown, is_unknown = _parser(), [], False
    for argument in arguments:
        if argument.startswith("--") and argument != "--":
            name = argument[2:].partition("=")[0].partition(".")[0].rstrip("+")
            is_unknown = name not in parser.names
        if is_unknown:
            unknown.append(argument)
    if unknown:
        parser.error(f"unrecognized arguments: {' '.join(unknown)}")
    values = dict(typed_options(arguments))
    # Classes of the user have short names, too, once they are imported.
    trusted = f"--{TRUST}" in arguments or trust.types_names_of_others(arguments)
    if not trusted and "torch" not in sys.modules:
        for option, value in values.items():
            part = option.removesuffix(".help")
            known = [PARTS[part].base, *part_names(part)] if part in PARTS else []
            if known and value.isidentifier() and value not in ("null", *known):
                raise InputError(no_class(part, value))
    data = Path(values.get("data", ""))
    if data.suffix.lower() in FILES and not data.exists():
        beside = [path.name for path in data.parent.glob("*") if path.suffix.lower() in FILES]
        found = similar(data.name, beside)
        meant = did_you_mean(found and str(data.with_name(found)))
        raise InputError(f"there is no file {data} (option --data){meant}")


def _parser() -> Parser:
    """Return a parser of the options of training, as texts: the most used options first."""
    parser = Parser(
        usage="%(prog)s [--OPTION VALUE ..]",
        description="Train a VAE by SVI, and bound log p(x) on held-out data.",
    )
    others = parser.add_argument_group("more options")
    for option in options():
        group = parser if option.name in USED_MOST else others
        group.add_argument(
            f"--{option.name}",
            default=option.default,
            metavar=option.choices,
            help=option.meaning,
        )
    add_starting_options(parser)
    return parser


def options() -> list[Described]:
    """Return the options of a run, in their order."""
    tree = source("pyro_vae.runs.options")
    (made,) = (n for n in tree.body if isinstance(n, ast.ClassDef) and n.name == "Options")
    arguments = parse(ast.get_docstring(made) or "").params
    meanings = {each.arg_name: " ".join((each.description or "").split()) for each in arguments}
    found = []
    for field in made.body:
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name):
            name = field.target.id
            names = ", ".join(part_names(name)) if name in PARTS else ""
            more = f" Choose {names}; --{name}.help NAME describes one." if names else ""
            meaning, choices = meanings[name] + more, _choices(field.annotation)
            found.append(Described(name, meaning, _default(field.value), choices))
    return found


def _default(value: ast.expr | None) -> str:
    """Return the default value of a field as text: of `at_least(0, 5)` it is the last argument."""
    if isinstance(value, ast.Call):
        return _default(value.args[-1]) if value.args else "{}"
    if isinstance(value, ast.Attribute):  # the class of a part
        return value.attr
    return str(ast.literal_eval(value)) if value is not None else ""


def _choices(annotation: ast.expr) -> str | None:
    """Return the choices of a `Literal`, also of one that may be None."""
    if isinstance(annotation, ast.BinOp):
        annotation = annotation.left
    if isinstance(annotation, ast.Subscript) and ast.unparse(annotation.value) == "Literal":
        return f"{{{','.join(ast.literal_eval(annotation.slice))}}}"
    return None
