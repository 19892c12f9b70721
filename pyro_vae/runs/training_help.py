"""The help of `pyro-vae train`, at once: importing the classes that it names takes seconds.

It is read from the source of `Options`, and from the names that the packages of parts import.
"""

import ast
from typing import NamedTuple

from docstring_parser import parse

from pyro_vae.runs.parser import Parser, add_starting_options
from pyro_vae.runs.part_names import PARTS, part_names, source

USED_MOST = ("data", "latent_dim", "prior", "likelihood", "posterior", "objective", "epochs")


class Described(NamedTuple):
    """An option: its name, what it means, its default value as text, and its choices, if listed."""

    name: str
    meaning: str
    default: str
    choices: str | None


def page() -> str:
    """Return the help of training: the most used options first."""
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
    return parser.format_help()


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
