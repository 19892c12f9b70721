"""The command line: the options of a run, their parser, and the one line on what is wrong."""

import contextlib
import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NoReturn

import yaml
from jsonargparse import ArgumentParser, Namespace

from pyro_vae import data as data_sets
from pyro_vae import likelihoods, objectives, posteriors, priors, training
from pyro_vae.bounds import Settings
from pyro_vae.errors import DivergenceError, InputError
from pyro_vae.kinds import Binarization
from pyro_vae.likelihoods import Likelihood
from pyro_vae.networks import Network
from pyro_vae.objectives import Objective
from pyro_vae.posteriors import Posterior
from pyro_vae.priors import Prior

COMPONENTS: dict[str, type] = {  # by an option's name, or the last part of it
    "prior": Prior,
    "likelihood": Likelihood,
    "decoder": Network,
    "posterior": Posterior,
    "encoder": Network,
    "objective": Objective,
    "network": Network,
    "prior.top": Prior,
    "posterior.top": Posterior,
}
# What may be given anew for a run that exists: where the data lie, how long, on what, how much.
CHANGEABLE = ("data", "data_root", "epochs", "device", "num_samples", "num_examples")


@dataclass
class Options:
    """Everything that is needed to repeat a run.

    Args:
        data: {sources}.
        data_root: The folder where torchvision's data sets lie, or are downloaded to.
        data_seed: Seed of the split, of static binarization, and of how held-out images are shown.
        validation_fraction: The share of the training images that is set aside for validation.
        test_fraction: The share set aside for testing, where the data come without a test set.
        binarization: How grey pixels are shown to a binary likelihood: drawn anew each time, drawn
            once, or compared with one half.
        latent_dim: The dimension of z.
        prior: p(z).
        likelihood: p(x|z), with its decoder network.
        posterior: q(z|x), with its encoder network.
        objective: What is trained.
        epochs: The number of passes over the training images.
        batch_size: The number of images in a step.
        lr: The learning rate of Adam.
        engine: What takes the steps; auto compiles where training is long enough to pay for it.
        precision: Of matrix products in training; bfloat16 is faster where the machine knows it.
        seed: Seed of the initial parameters and of all noise in training and evaluation.
        diagnose_every: After how many epochs, each time, the latent code is diagnosed; 0 for never.
        aggressive: How many steps the guide may take alone before each of the model's, while the
            mutual information of x and z grows (He et al. 2019).
        device: Where to compute; auto takes a GPU if there is one.
        num_samples: K, the number of draws of z for each test image when log p(x) is bounded.
        num_examples: The number of test images to bound log p(x) on, chosen at random.
    """

    data: str = "digits"
    data_root: str = "data"
    data_seed: int = 0
    validation_fraction: float = 0.1
    test_fraction: float = 0.1
    binarization: Binarization = "dynamic"
    latent_dim: int = 8
    prior: Callable[[int], Prior] = priors.StandardNormal
    likelihood: Callable[[int, Sequence[int]], Likelihood] = likelihoods.Bernoulli
    posterior: Callable[[Sequence[int], int], Posterior] = posteriors.Normal
    objective: Callable[[], Objective] = objectives.ELBO
    epochs: int = 200
    batch_size: int = 100
    lr: float = 1e-3
    engine: Literal["auto", "compiled", "eager"] = "auto"
    precision: training.Precision = "float32"
    seed: int = 0
    diagnose_every: int = 5
    aggressive: int = 0
    device: Literal["auto", "cpu", "cuda"] = "auto"
    num_samples: int = 5000
    num_examples: int = 1000

    def check(self) -> None:
        """Refuse numbers that make no sense.

        Raises:
            InputError: naming the first of them.
        """
        for name in ("latent_dim", "epochs", "batch_size", "num_samples", "num_examples", "lr"):
            value = getattr(self, name)
            if not 0 < value < float("inf"):
                raise InputError(f"--{name} has to be positive, and {value} is not")
        if self.num_examples < 2:
            raise InputError("--num_examples has to be at least 2: one has no standard error")
        for name in ("diagnose_every", "aggressive"):
            if getattr(self, name) < 0:
                raise InputError(f"--{name} cannot be negative, and {getattr(self, name)} is")
        for name in ("seed", "data_seed"):
            if not 0 <= getattr(self, name) < 2**32:
                raise InputError(f"--{name} has to be between 0 and 2**32 - 1")


# The help of --data.
Options.__doc__ = str(Options.__doc__).replace("{sources}", data_sets.describe_sources())


@dataclass(frozen=True)
class Plan:
    """What an evaluation measures beside the ELBO and IWAE.

    Args:
        method: ais bounds log p(x) from both sides by annealed importance sampling, too.
        ais: How its chains are led from q(z|x), or p(z), to p(x, z).
        subset: How many of the test images are annealed; the mean over all is then had from IWAE on
            all, and the difference on these. By default all are.
        simulated: How many images drawn from the model certify the chains, by going both ways.
        refine: How many steps of SVI refine q(z|x) for each image, to tell the amortisation gap.
        checks: How many images are drawn from the model for predictive checks. Drawing takes
            autoregressive likelihoods a pass for each pixel; 0 leaves it out.
        draws: How many draws for each of 50 test images, in each of 4 chains, bounds.nc gets; 0
            leaves it out, which spares autoregressive likelihoods much time.
    """

    method: Literal["importance", "ais"] = "importance"
    ais: Settings = field(default_factory=Settings)
    subset: int | None = None
    simulated: int = 100
    refine: int = 0
    checks: int = 1000
    draws: int = 10

    def __post_init__(self) -> None:
        for name in ("simulated", "refine", "checks", "draws"):
            if getattr(self, name) < 0:
                raise InputError(f"--{name} cannot be negative, and {getattr(self, name)} is")
        if self.checks == 1:
            raise InputError("--checks takes two images or more, or 0")
        if self.subset is not None and self.subset < 2:
            raise InputError(f"--subset has to be at least 2, and {self.subset} is not")
        if self.subset is not None and self.method != "ais":
            raise InputError("--subset is of images to anneal: it goes with --method ais")


class _Parser(ArgumentParser):
    """Says what is wrong in one line, with the choices."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        raise InputError(_explain(message))


def parser() -> ArgumentParser:
    """Return a parser of the options of a run."""
    result = _Parser(description="Train a VAE by SVI, and bound log p(x) on held-out data.")
    result.add_argument(
        "--config",
        action="config",
        help="A YAML file of options, as runs write it. Where another class is then named for a "
        "part, it keeps those of the options that it has too.",
    )
    result.add_argument(
        "--out",
        type=str | None,
        help="The new folder that the run fills; runs/DATA-TIME if it is not given.",
    )
    result.add_argument(
        "--resume", type=str | None, help="A run's folder, to go on where it stopped."
    )
    result.add_class_arguments(Options, as_group=False)
    return result


def parse(arguments: Sequence[str] | None = None) -> Namespace:
    """Parse a command line.

    A run that is resumed has the options that it was started with. Of those, `CHANGEABLE` may be
    given anew.

    Raises:
        InputError: if the command line is not understood.
    """
    sys.path.append(os.getcwd())  # users' own classes are named by import path
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    try:
        given = _parse(arguments)
    except UnicodeDecodeError as error:
        raise InputError("the --config file is no YAML file") from error
    for name in Options.__dataclass_fields__:
        if given[name] is None:
            raise InputError(f"--{name} has no value")
    if given.resume is None:
        return given
    if given.config or given.out:
        raise InputError("--resume goes on with the run's own configuration, in its own folder")
    config = Path(given.resume) / "config.yaml"
    before = read(config)
    now = _parse(["--config", str(config), *arguments])
    for name in Options.__dataclass_fields__:
        if name not in CHANGEABLE and before[name] != now[name]:
            raise InputError(f"--{name} cannot change when a run is resumed: start a new one")
    return now


def _parse(arguments: Sequence[str]) -> Namespace:
    """Parse options, where a class that is named has its own defaults.

    By itself jsonargparse hands on to it those of the class that is named by default, `ELBO`'s
    single particle to `IWAE`, say.
    """
    given = parser().parse_args(arguments, defaults=False)
    named = {name: given.get(name) for name in Options.__dataclass_fields__}
    result = parser()
    for name, part in named.items():
        if isinstance(part, Namespace) and "class_path" in part:
            result.set_defaults({name: {"class_path": part.class_path}})
    return result.parse_args(arguments)


def parse_evaluation(arguments: Sequence[str] | None = None) -> Namespace:
    """Parse the command line of an evaluation: the run's folder, and what is asked of it.

    Raises:
        InputError: if the command line is not understood.
    """
    sys.path.append(os.getcwd())
    result = _Parser(description="Bound log p(x) anew for a run that was trained.")
    result.add_argument(
        "run", help="The run's folder; bounds.json and its figure are written anew."
    )
    for name, what in (
        ("num_samples", "K, the number of draws of z for each test image"),
        ("num_examples", "the number of test images, chosen at random"),
    ):
        result.add_argument(f"--{name}", type=int | None, help=f"{what}; by default as in the run.")
    result.add_class_arguments(Plan, as_group=False)
    for name in ("data", "data_root"):
        result.add_argument(f"--{name}", type=str | None, help="Where the data lie now, if moved.")
    result.add_argument(
        "--device", type=Literal["auto", "cpu", "cuda"], default="auto", help="Where to compute."
    )
    return result.parse_args(arguments)


def plan(namespace: Namespace) -> Plan:
    """Return what the command line of an evaluation asks for.

    Raises:
        InputError: if it makes no sense.
    """
    values = {name: namespace[name] for name in Plan.__dataclass_fields__}
    return Plan(**{**values, "ais": Settings(**vars(namespace.ais))})


def parse_comparison(arguments: Sequence[str] | None = None) -> Namespace:
    """Parse the command line of a comparison: the runs' folders, and a file for its figure.

    Raises:
        InputError: if the command line is not understood.
    """
    result = _Parser(description="Compare runs on the same test images, in pairs with the first.")
    result.add_argument("runs", nargs="+", help="The folders of two runs or more.")
    result.add_argument(
        "--figure", type=str | None, help="A picture to draw the differences into: forest.png, say."
    )
    return result.parse_args(arguments)


def read(path: Path) -> Namespace:
    """Read the options that a run was started with.

    Raises:
        InputError: if there are none.
    """
    if not path.exists():
        raise InputError(f"{path.parent} is no run: there is no {path.name} in it")
    try:
        content = yaml.safe_load(path.read_text())
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is no YAML file") from error
    found = content if isinstance(content, dict) else {}
    missing = [name for name in Options.__dataclass_fields__ if found.get(name) is None]
    if missing:
        raise InputError(f"{path} is not whole: it lacks {', '.join(missing)}")
    return _parse(["--config", str(path)])


def instantiate(namespace: Namespace) -> Options:
    """Make options of what was parsed.

    Raises:
        InputError: if one of them makes no sense.
    """
    values = vars(parser().instantiate(namespace))
    options = Options(**{name: values[name] for name in Options.__dataclass_fields__})
    options.check()
    return options


def dump(namespace: Namespace) -> str:
    """Return YAML from which the same options are parsed again, from any folder."""
    kept = {name: namespace[name] for name in Options.__dataclass_fields__}
    kept["data_root"] = str(Path(kept["data_root"]).resolve())
    if Path(kept["data"]).suffix:
        kept["data"] = str(Path(kept["data"]).resolve())
    return parser().dump(Namespace(**kept, config=None), skip_unset=True)


@contextlib.contextmanager
def one_line_errors(if_interrupted: str = "") -> Iterator[None]:
    """Turn what the user can mend into one line and exit code 2."""
    try:
        yield
    except (InputError, DivergenceError, OSError) as error:
        print("error:", " ".join(str(error).split()), file=sys.stderr)
        sys.exit(2)
    except (MemoryError, RuntimeError) as error:
        if not (isinstance(error, MemoryError) or re.search("allocate|out of memory", str(error))):
            raise
        print("error: there is not enough memory for these options", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print(f"\ninterrupted {if_interrupted}".rstrip(), file=sys.stderr)
        sys.exit(130)


def _explain(message: str) -> str:
    """Put jsonargparse's report into one line, with the choices."""
    message = " ".join(message.split())
    about = re.match(r'Parser key "([\w.]+)": (?:Type .* callable class: )?(.*)', message)
    if about is None:
        return message
    key, problem = about.groups()
    if problem.startswith("--"):  # explained already, as an option of a component
        inner, _, problem = problem.removeprefix("--").partition(": ")
        key = f"{key}.{inner}"
        if "see --" in problem:
            problem, _, _ = problem.partition(": see --")
        elif key not in COMPONENTS:
            return f"--{key}: {problem}"
    problem = re.sub(r"<class '(\w+)'>|typing\.Literal", r"\1", problem)
    base = COMPONENTS.get(key) or COMPONENTS.get(key.rpartition(".")[2])
    if base is None:
        return f"--{key}: {problem}"
    if "not accepted" in problem:
        # jsonargparse has no help on what is nested deeper, but the classes are the same.
        first, _, last = key.rpartition(".")
        part = f"{first.split('.')[0]}.{last}" if last in COMPONENTS else key.split(".")[0]
        return f"--{key}: {problem}: see --{part.strip('.')}.help NAME for those that are"
    if "Expected a dot import path string" in problem:
        problem = f"there is no '{problem.rpartition(': ')[2]}'"
    names = ", ".join(subclass.__name__ for subclass in _subclasses(base))
    return f"--{key}: {problem}: choose {names}, or give the import path of your own class"


def _subclasses(base: type) -> list[type]:
    """The public classes below `base`."""
    found: list[type] = []
    subclass: type
    for subclass in base.__subclasses__():
        found += [subclass] if not subclass.__name__.startswith("_") else []
        found += _subclasses(subclass)
    return found
