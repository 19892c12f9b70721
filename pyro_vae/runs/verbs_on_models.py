"""The verbs of `pyro-vae` that read a trained model alone: they draw from it or export it."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

from jsonargparse import Namespace

from pyro_vae.errors import InputError
from pyro_vae.runs import command_line, speaking, work_on_files
from pyro_vae.runs.parser import Parser, add_trust_code
from pyro_vae.runs.work_on_files import PICTURES, How

if TYPE_CHECKING:
    from pyro_vae.runs.applying import Trained, Written


def sample(arguments: Sequence[str] | None = None) -> None:
    """Write examples that are drawn from the model.

    Args:
        arguments: the arguments of the command line; by default those of this process.
    """
    parser = work_on_files.make_parser(
        "Write examples that are drawn from the model, in the data's own form.",
        PICTURES,
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
    parser.examples = (
        "pyro-vae sample runs/vamp --count 36 --out drawn.png",
        "pyro-vae sample runs/vamp --count 36 --out threes.png --condition 3 --temperature 0.8",
    )

    def work(model: "Trained", options: Namespace, how: How) -> "Written":
        from pyro_vae.runs import applying

        return applying.sample_file(
            model,
            options.count,
            options.out,
            _conditions(model, options.condition),
            options.temperature,
            seed=options.seed,
            **how,
        )

    work_on_files.run(parser, arguments, "drew", work)


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
    speaking.add_quiet(parser)
    parser.examples = (
        "pyro-vae export runs/vamp --out programs",
        "pyro-vae export runs/vamp --out programs --format onnx",
    )
    options = work_on_files.parsed(parser, arguments)

    from pyro_vae.runs import applying

    with command_line.one_line_errors(options, f"- {options.out} was not written"):
        model = applying.load(options.run, trust_code=options.trust_code)
        names = applying.export(model, options.out, options.format, overwrite=options.overwrite)
        speaking.note(f"exported {', '.join(names)}: {options.out}")


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
                f"{name} is not a condition of this model: give {', '.join(specs)}", "condition"
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
        raise InputError(f"{name} has to be a number, but is '{text}'", "condition") from error
