"""A jsonargparse parser that describes what is wrong in one line, with the possible choices."""

import re
import sys
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NoReturn

from jsonargparse import ArgumentParser, Namespace

from pyro_vae.errors import InputError
from pyro_vae.runs import bounded_yaml, speaking, trust
from pyro_vae.runs.part_names import PARTS, part_names
from pyro_vae.runs.spelling import did_you_mean, similar

TRUST = "trust_code"
LONGEST = 1000  # characters of a message
UNKNOWN = re.compile(  # an option of a part, as `Parser.error` names it, and one that is like it
    r"(\w+) has no option '([^']+)'(?:.*: did you mean ([^ ?]+)\?)?"
)
NUMBERS = {"int": "a whole number", "float": "a number"}
COMPONENTS = {  # which classes an option takes (see PARTS), by its name or its last part
    **{name: name for name in PARTS},
    "decoder": "network",
    "encoder": "network",
    "prior.top": "prior",
    "posterior.top": "posterior",
}


class Parser(ArgumentParser):
    """A parser that raises `InputError`, and that checks files before it reads them.

    Options are not abbreviated.

    Attributes:
        trust_code: whether files of options may name classes that are not in this package.
        examples: commands that the help ends with.
    """

    trust_code = False
    examples: tuple[str, ...] = ()
    _given: tuple[tuple[str, str], ...] = ()  # options and their texts, typed or in files
    _part = ""  # the name of the class of a part, if its options are parsed

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{"allow_abbrev": False, **kwargs})

    def add_class_arguments(
        self, theclass: type, nested_key: str | None = None, as_group: bool = True, **kwargs: Any
    ) -> list[str]:
        """Add the arguments of a class. Of a part, which jsonargparse adds, the name is kept."""
        if nested_key is None and as_group:
            self._part = theclass.__name__
        return super().add_class_arguments(theclass, nested_key, as_group, **kwargs)

    @property
    def names(self) -> set[str]:
        """The names of the options, without the dashes."""
        return {option[2:] for option in self._option_string_actions if option.startswith("--")}

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Raise an error with a message of one line."""
        explained = explain(self._with_suggestion(" ".join(message.split())))
        raise InputError(explained if len(explained) <= LONGEST else f"{explained[:LONGEST]} ..")

    def _with_suggestion(self, message: str) -> str:
        """Return a message; if an option is unknown, with the name that is most like it."""
        if message.startswith("unrecognized arguments: ") and not self._part:
            names = re.findall(r" --([^\s=]+)", message)
            found = [f"--{each}" for each in map(self._similar, names) if each]
            return message + did_you_mean(" and ".join(found))
        unknown = re.fullmatch(r"Option '(.+)' is not accepted", message)
        unknown = unknown or re.match(r"unrecognized arguments: --([^\s=]+)", message)
        if unknown is None or unknown[1] == "class_path":
            return message
        has_no = f"{self._part} has no" if self._part else "there is no"
        return f"{has_no} option '{unknown[1]}'{did_you_mean(self._similar(unknown[1]))}"

    def _similar(self, typed: str) -> str | None:
        """Return the option that is most like an unknown one, or begins with a part like its."""
        first, dot, rest = typed.partition(".")
        if first in self.names:
            inner = {name.removeprefix(f"{first}.") for name in self.names - {first}}
            found = similar(rest, inner - self.names)
            return found and f"{first}.{found}"
        found = similar(first, {name for name in self.names if "." not in name})
        return found and f"{found}{dot}{rest}"

    def format_help(self, *args: Any, **kwargs: Any) -> str:
        """Return the help, with the examples below it."""
        examples = "".join(f"  {example}\n" for example in self.examples)
        return super().format_help(*args, **kwargs) + (
            f"\nexamples:\n{examples}" if examples else ""
        )

    def parse_path(self, path: Any, *args: Any, **kwargs: Any) -> Namespace:
        """Parse a file of options. `--config` calls it."""
        text = trust.read(Path(path), self.trust_code)
        self._given = (*self._given, *_texts(bounded_yaml.load(text)))
        return self.parse_string(text, *args, **kwargs)

    def parse_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, *others: Any, **kwargs: Any
    ) -> Namespace:
        """Parse arguments, and refuse numbers to another base than ten.

        jsonargparse reads 1:30 as 90 where it expects a number, to base 60, as YAML 1.1 says.
        """
        args = sys.argv[1:] if args is None else args
        self._given = (*typed_options(args),)
        namespace = super().parse_args(_with_names(args), *others, **kwargs)
        values = {key.replace(".init_args", ""): value for key, value in namespace.items()}
        for option, text in self._given:
            number = bounded_yaml.number_to_other_base(text)
            value = values.get(option)
            if number is not None and not isinstance(value, str) and value == number:
                raise InputError(
                    f"--{option}: {text} is not a decimal number: YAML reads it as {number}, in "
                    "another base. Write it in decimals"
                )
        if namespace.get("quiet"):  # files of options, which are parsed too, do not turn it off
            speaking.be_quiet(True)
        return namespace


def typed_options(arguments: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Return the options of a command line with what is typed for them."""
    for argument, following in pairwise([*arguments, ""]):
        if argument.startswith("--"):
            option, has_value, value = argument.removeprefix("--").partition("=")
            bounded_yaml.check_typed(value if has_value else following)
            yield option, value if has_value else following


def _with_names(arguments: Sequence[str]) -> list[str]:
    """Return arguments in which `--prior.help` names the class that is typed for `--prior`.

    If none is typed, the classes are listed, and the process ends.
    """
    values, result = dict(typed_options(arguments)), []
    for argument, following in pairwise([*arguments, "--"]):
        about = re.fullmatch(r"--([\w.]+)\.help", argument)
        if about and following.startswith("--") and about[1] in COMPONENTS:
            name = values.get(about[1], "")
            if not re.fullmatch(r"\w[\w.]*", name):
                names = ", ".join(part_names(COMPONENTS[about[1]]))
                print(f"--{about[1]} takes {names}. {argument} NAME describes the options of one.")
                sys.exit(0)
            argument = f"{argument}={name}"
        result.append(argument)
    return result


def _texts(options: object, name: str = "") -> Iterator[tuple[str, str]]:
    """Return the texts in nested options, with the names of their options."""
    if isinstance(options, str):
        yield name, options
    elif isinstance(options, dict):
        for key, value in options.items():
            inner = name if key == "init_args" else f"{name}.{key}".strip(".")
            yield from _texts(value, inner)


def add_trust_code(to: Parser) -> None:
    """Add the option `--trust_code` to a parser."""
    to.add_argument(
        f"--{TRUST}",
        action="store_true",
        help="Import classes that a file of options names and that are not in pyro_vae, also from "
        "the current folder. This executes their code.",
    )


def add_starting_options(to: Parser) -> None:
    """Add the options that start or resume a run to a parser."""
    to.add_argument(
        "--config",
        action="config",
        help="A YAML file of options, such as a run's config.yaml. Options on the command line "
        "override it. If you name another class for a part, it keeps those options of the file "
        "that both classes have.",
    )
    to.add_argument(
        "--out",
        type=str | None,
        help="The new folder for the run; runs/DATA-TIME by default.",
    )
    to.add_argument("--resume", type=str | None, help="The folder of a run to continue.")
    add_trust_code(to)
    speaking.add_quiet(to)
    to.examples = (
        "pyro-vae train",
        "pyro-vae train --data images.npy --latent_dim 20 --prior Vamp --out runs/vamp",
        "pyro-vae train --prior.help Vamp",
        "pyro-vae train --resume runs/vamp --epochs 400",
    )


def explain(message: str) -> str:
    """Rewrite an error message of jsonargparse as one line that names the option and the choices.

    jsonargparse raises errors that hold a sentence and nothing else: neither the option nor the
    value is an attribute. So the sentences are read here, and only here; `test_command_line.py` has
    a test for each of them.

    An option of a component (`--prior.components`) is parsed by a parser of its own. Its message
    comes back as a part of the outer parser's message, already in the form that this function
    gives it.
    """
    message = " ".join(message.split())
    message = re.sub(r"^--([\w.]+)\.help: ", r'Parser key "\1": ', message)
    if missing := re.fullmatch(r"the following arguments are required: ([\w, ]+)", message):
        names = [name if name == "run" else f"--{name}" for name in missing[1].split(", ")]
        return f"{', '.join(names)} {'is' if len(names) == 1 else 'are'} missing: see --help"
    about = re.match(r'Parser key "([\w.]+)": (?:Type .* callable class: )?(.*)', message)
    if about is None:
        return message
    option, problem = about.groups()
    if optional := re.match(r".* Errors: - (.*) - Expected a <class 'NoneType'> (.*)", problem):
        problem, given = optional.groups()  # what is wrong, but for the fact that it is not None
        if problem.startswith("Expected a <class"):
            problem += f". Got value: {given.rpartition('Given value: ')[2]}"
    if nested := re.search(r"must include a class_path .* NestedArg\(key='([\w.]+)'", problem):
        problem = f"no class is named that takes the option '{nested[1]}'"
    inner = ""
    if problem.startswith("--"):  # from the parser of a component
        inner, _, problem = problem.removeprefix("--").partition(": ")
        option = f"{option}.{inner}"
        if not UNKNOWN.match(problem) and option not in COMPONENTS:
            return f"--{option}: {problem}"
    if "collections.abc.Sequence" in problem:
        given = problem.rpartition("Got value: ")[2]
        problem = f"expected numbers in brackets, such as [{_first_number(given)}]. Got: {given}"
    problem = re.sub(r"<class '(\w+)'>|typing\.Literal", r"\1", problem)
    if choices := re.match(r"Expected a \[('[^\]]*')\](?:\. Got value: (.*))?", problem):
        given = f", not {choices[2]}" if choices[2] else ""
        *first, last = choices[1].replace("'", "").split(", ")
        return f"--{option}: choose {', '.join(first)} or {last}{given}"
    if number := re.match(r"Expected a (int|float)\. Got value: (.*)", problem):
        return f"--{option}: expected {NUMBERS[number[1]]}, but got {number[2]}"
    if unknown := UNKNOWN.match(problem):
        part, name, found = unknown.groups()
        about_part = f"see --{_option_with_help(option)}.help {part} for its options"
        found = found and f"--{option}.{found.removeprefix(f'--{inner}.')}"
        return f"--{option}: {part} has no option '{name}', {about_part}{did_you_mean(found)}"
    if "'class_path' is not accepted" in problem:
        return (
            f"--{option}: a class has its options in init_args, as in {{class_path: NAME, "
            "init_args: {OPTION: VALUE}}, or as further options of the command line"
        )
    if not _classes(option):
        return f"--{option}: {problem}"
    if "Expected a dot import path string" in problem:
        return no_class(option, problem.rpartition(": ")[2])
    where = "; run the command in its folder" if "No module named" in problem else ""
    return f"--{option}: {problem}: {_choices(option)}{where}"


def no_class(option: str, name: str) -> str:
    """Return the message that no class for an option has this name."""
    found = did_you_mean(similar(name, _classes(option)))
    return f"--{option}: there is no '{name}': {_choices(option)}{found}"


def _classes(option: str) -> list[str]:
    """Return the names of the classes that an option takes, if it takes classes."""
    kind = COMPONENTS.get(option) or COMPONENTS.get(option.rpartition(".")[2])
    return part_names(kind) if kind else []


def _choices(option: str) -> str:
    return f"choose {', '.join(_classes(option))}, or give the import path of your own class"


def _first_number(text: str) -> str:
    """Return the first number in a text, or one that stands for it."""
    found = re.search(r"\d+", text)
    return found[0] if found else "200, 200"


def _option_with_help(option: str) -> str:
    """Return the option whose help describes a component.

    jsonargparse has no help for options that are nested deeper than two levels, but the classes
    below the first level are the same.
    """
    first, _, last = option.rpartition(".")
    part = f"{first.split('.')[0]}.{last}" if last in COMPONENTS else option.split(".")[0]
    return part.strip(".")
