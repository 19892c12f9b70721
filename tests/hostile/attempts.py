"""What a user gets for hostile input: each attempt is made from its number, and named by its kind.

An attempt ends `accepted`, or `refused` by one of the errors that the command line prints as one
line. Whatever else happens is a failure, and is returned as a text that says what.
"""

import contextlib
import copy
import inspect
import io
import os
import shutil
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any, Literal, get_args, get_origin

import data_files
import torch
import yaml

import pyro_vae
from pyro_vae import likelihoods, networks, objectives, posteriors, priors, training
from pyro_vae.errors import DivergenceError, InputError
from pyro_vae.runs import command_line, commands, config, evaluation
from pyro_vae.runs.plan import Plan
from pyro_vae.runs.run import Run

Attempt = tuple[str, str]  # what was tried, and how it ended
SMALL = [
    "--epochs=1",
    "--batch_size=16",
    "--num_samples=8",
    "--num_examples=4",
    "--diagnose_every=0",
]
SMALL += ["--posterior.encoder.widths=[5]", "--likelihood.decoder.widths=[5]", "--latent_dim=2"]
LONGEST = 1500  # characters of a refusal


class Workshop:
    """A folder, with a small run in it, where attempts are made one after the other."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        os.chdir(folder)
        self.options = config.parse(SMALL)
        self.run = folder / "base"
        quiet = io.StringIO()
        with contextlib.redirect_stderr(quiet), contextlib.redirect_stdout(quiet):
            commands.train([*SMALL, f"--out={self.run}"])

    def config_of(self, **changes: Any) -> Any:
        """Return the small run's options, some of them changed."""
        namespace = copy.deepcopy(self.options)
        for name, value in changes.items():
            namespace[name] = value
        return namespace


def ending(attempt: Callable[[], Any]) -> str:
    """Run an attempt, and say how it ended."""
    try:
        with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            attempt()
    except InputError as error:
        message = str(error)
        if "\n" in message or not message or len(message) > LONGEST:
            return f"no line: {message[:300]!r}"
        return "refused"
    except DivergenceError:
        return "diverged"
    except (OSError, MemoryError, RuntimeError) as error:
        stopped = io.StringIO()
        try:
            with contextlib.redirect_stderr(stopped), command_line.one_line_errors():
                raise error
        except SystemExit:
            return f"refused by the command line: {stopped.getvalue()[:60]!r}"
        except RuntimeError:
            return _failure(error)
    except Exception as error:
        return _failure(error)
    return "accepted"


def _failure(error: Exception) -> str:
    trace = error.__traceback__
    places = []
    while trace is not None:
        code = trace.tb_frame.f_code
        if "pyro_vae" in code.co_filename:
            places.append(f"{Path(code.co_filename).name}:{trace.tb_lineno}")
        trace = trace.tb_next
    text = " ".join(str(error).split())
    return f"failure: {type(error).__name__}: {text[:160]} at {' '.join(places[-3:])}"


def left_behind(before: set[str], folder: Path) -> str:
    """Return what an attempt has left: code that was executed, or files that are half-written."""
    if (folder / "executed").exists():
        (folder / "executed").unlink()
        return "failure: code was executed"
    after = {each.name for each in folder.iterdir()}
    return f"failure: left behind {sorted(after - before)}" if after - before else ""


def _as_it_ended(ended: str, before: set[str], folder: Path) -> str:
    return ended if ended.startswith("failure") else left_behind(before, folder) or ended


@contextlib.contextmanager
def scratch(workshop: Workshop) -> Iterator[Path]:
    """Give a folder for one attempt."""
    inner = workshop.folder / "scratch"
    shutil.rmtree(inner, ignore_errors=True)
    inner.mkdir()
    try:
        yield inner
    finally:
        shutil.rmtree(inner, ignore_errors=True)


def _trained(run: Run, rng: Random) -> None:
    """Take one step, or train and evaluate the run as the command does."""
    if rng.random() < 0.8:
        run.engine.step(run.train[:16], run.observe)
        x = run.test[:2]
        if not all(each.isfinite().all() for each in run.vae.parameters()):
            raise DivergenceError("the next step would say so")
        pyro_vae.bounds.evaluate(run.vae.model, run.vae.guide, x, 4)
        return
    run.create()
    run.fit()
    evaluation.evaluate(run, Plan(checks=0, draws=0))


def of_data(number: int, workshop: Workshop) -> Attempt:
    """Load a data file; if it is taken, build a run on it and take a step."""
    rng = Random(number)
    with scratch(workshop) as folder:
        what, path = data_files.write(rng, folder)
        options = data_files.options(rng)
        batch = rng.choice([1, 2, 16])
        namespace = workshop.config_of(data=str(path), batch_size=batch, **options)
        before = {each.name for each in folder.iterdir()}
        ended = ending(lambda: _trained(Run.build(folder / "run", namespace), rng))
        if ended == "accepted":
            shutil.rmtree(folder / "run", ignore_errors=True)
        else:  # a run whose training diverges stays, as it should
            before |= {"run"} if ended == "diverged" else set()
        return f"data {what}", _as_it_ended(ended, before, folder)


EXTREMES: list[Any] = [
    0,
    -1,
    1,
    2,
    3,
    0.5,
    1e-300,
    1e300,
    float("nan"),
    float("inf"),
    10**9,
    10**20,
]
EXTREMES += ["x", "", None, True, [], [0], [3], [-1], [2, 2], {}, "0x10", "1:30", "MLP"]
PARTS = {
    "prior": (priors, priors.Prior),
    "posterior": (posteriors, posteriors.Posterior),
    "likelihood": (likelihoods, likelihoods.Likelihood),
    "objective": (objectives, objectives.Objective),
    "posterior.encoder": (networks, networks.Network),
    "likelihood.decoder": (networks, networks.Network),
    "schedule": (training, training.Schedule),
    "optimizer": (training, training.Optimizer),
    "average": (training, training.Averaging),
}
TABLE = "r,k,c,b,h\n" + "\n".join(
    f"{0.1 * i - 2},{i % 7},{'uvw'[i % 3]},{i % 2},{'' if i % 5 == 0 else 1.5 * i}"
    for i in range(60)
)


# Pairs that have the same kind of codes; most pairs drawn at random do not.
REAL = ["AR1", "LARS", "Exemplar", "Flow", "Laplace", "LearnedNormal", "Mixture", "StandardNormal"]
REAL += ["StudentT", "Vamp", "ConditionalNormal"]
PAIRS = [(prior, each) for prior in REAL for each in ("Normal", "FullNormal", "LowRankNormal")]
PAIRS += [(prior, each) for prior in REAL for each in ("IAF", "SplineFlow")]
PAIRS += 5 * [("UniformSphere", "PowerSpherical"), ("Bernoulli",) * 2, ("Categorical",) * 2]
PAIRS += 5 * [("Hierarchical", each) for each in ("Hierarchical", "Ladder", "BottomUp")]
FLAT = ["MLP", "SkipMLP", "Linear"]


def _classes(name: str) -> list[type]:
    package, base = PARTS[name]
    found = [getattr(package, each) for each in package.__all__]
    return [
        each
        for each in found
        if isinstance(each, type) and issubclass(each, base) and not inspect.isabstract(each)
    ]


def _value(rng: Random, parameter: inspect.Parameter, extreme: float) -> Any:
    """Return a value for a parameter of a class: a plausible one, or one of any type and size."""
    if rng.random() < extreme:
        return rng.choice(EXTREMES)
    if get_origin(parameter.annotation) is Literal:
        return rng.choice(get_args(parameter.annotation))
    default = parameter.default
    if isinstance(default, bool):
        return rng.choice([True, False])
    if parameter.name == "categories":
        return 2
    if isinstance(default, int):
        return rng.choice([1, 2, 3, 5])
    if isinstance(default, float):
        return rng.choice([0.0, 0.1, 0.5, 1.0, 2.0])
    if isinstance(default, tuple):
        return [rng.choice([1, 3, 8]) for _ in range(rng.choice([1, 2]))]
    return default


def _data(rng: Random, folder: Path) -> str:
    """Write data of one of the kinds that likelihoods are for."""
    import numpy as np

    draw = np.random.default_rng(rng.randrange(100))
    sort = rng.randrange(9)
    if sort == 0:
        return "digits"
    if sort in (1, 2):
        (folder / "t.csv").write_text(TABLE if sort == 1 else TABLE.replace(",,", ",1,"))
        return str(folder / "t.csv")
    x = {
        3: draw.integers(0, 256, (60, 5, 4)).astype("u1"),
        4: draw.random((60, 3, 4, 4)).astype("f4"),
        5: draw.normal(size=(60, 6)),
        6: draw.poisson(2.0, (60, 5)),
        7: np.exp(draw.normal(size=(60, 4))),
        8: draw.integers(0, 2, (60, 6)).astype("u1"),
    }[sort]
    np.save(folder / "x.npy", x)
    return str(folder / "x.npy")


def of_options(number: int, workshop: Workshop) -> Attempt:
    """Name parts and options at random; build the run, take a step, and bound log p(x)."""
    rng = Random(number)
    extreme = rng.choice([0.0, 0.0, 0.3])
    with scratch(workshop) as folder:
        given = {"data": _data(rng, folder), "latent_dim": rng.choice([2, 4, 4])}
        arguments = [f"--{name}={value}" for name, value in given.items()]
        arguments += [
            "--engine=eager",
            "--batch_size=16",
            "--diagnose_every=0",
            "--num_samples=8",
            "--num_examples=4",
        ]
        names = [name for name in PARTS if rng.random() < 0.4]
        names += ["prior", "posterior"]
        plausible = dict(zip(names[-2:], rng.choice(PAIRS), strict=True))
        plausible |= {name: rng.choice(FLAT) for name in PARTS if "." in name}
        plausible["likelihood"] = "ByKind"
        for name in sorted({*names}, key=lambda each: (each.count("."), each)):
            chosen = rng.choice(_classes(name))
            if name in plausible and rng.random() < 0.85:
                chosen = getattr(PARTS[name][0], plausible[name])
            arguments.append(f"--{name}={chosen.__name__}")
            for parameter in list(inspect.signature(chosen).parameters.values())[1:]:
                plain = parameter.default is not inspect.Parameter.empty
                plain &= parameter.name[0] != "_" and not inspect.isclass(parameter.default)
                if plain and rng.random() < 0.4:
                    value = _value(rng, parameter, extreme)
                    if value is not None or rng.random() < extreme:
                        arguments.append(f"--{name}.{parameter.name}={value}")
        if rng.random() < extreme:
            option = rng.choice(config.NAMES)
            if option not in ("data", "data_root", "device", "init_from", "engine"):
                arguments.append(f"--{option}={rng.choice(EXTREMES)}")
        before = {each.name for each in folder.iterdir()} | {"run"}
        kind = "options, extreme" if extreme else "options"
        ended = ending(
            lambda: _trained(Run.build(folder / "run", config.parse(arguments)), Random(1))
        )
        text = _as_it_ended(ended, before, folder)
        return kind, f"{text} of {' '.join(arguments)}" if text.startswith("fail") else text


def of_config(number: int, workshop: Workshop) -> Attempt:
    """Read a file of options that a stranger has changed."""
    from test_trust import mutate

    rng = Random(number)
    text = mutate(yaml.safe_load((workshop.run / "config.yaml").read_text()), rng)
    with scratch(workshop) as folder:
        path = folder / "config.yaml"
        path.write_text(text)
        if rng.random() < 0.2:
            data_files.damage(rng, path)
        before = {each.name for each in folder.iterdir()}
        ended = ending(
            lambda: config.instantiate(
                config.read(path) if number % 2 else config.parse([f"--config={path}"])
            )
        )
        return "configs", _as_it_ended(ended, before, folder)


def of_run(number: int, workshop: Workshop) -> Attempt:
    """Damage a file in the folder of a run, and use the run."""
    rng = Random(number)
    with scratch(workshop) as folder:
        run = folder / "run"
        shutil.copytree(workshop.run, run, ignore=shutil.ignore_patterns("figures", "report.html"))
        name = rng.choice(["best.pt", "checkpoint.pt", "data.pt", "scores.pt", "bounds.json"])
        path = run / name
        what = "damaged"
        sort = rng.randrange(6)
        if sort < 3 or path.suffix != ".pt":
            data_files.damage(rng, path)
        elif sort == 3:
            path.unlink()
            what = "missing"
        elif sort == 4:
            data_files.pt(rng, path)
            what = "another file"
        else:
            state = torch.load(path, weights_only=True)
            _change(rng, state)
            torch.save(state, path)
            what = "changed"
        before = {each.name for each in folder.iterdir()}
        ended = ending(lambda: _use(rng, name, run))
        return f"runs, {name} {what}", _as_it_ended(ended, before, folder)


def _use(rng: Random, name: str, folder: Path) -> None:
    """Use a run in one of the ways that read a file of it."""
    from pyro_vae.runs.comparison import compare_runs
    from pyro_vae.runs.reporting import run_page

    if name == "checkpoint.pt":
        options = command_line.parse_training(["--resume", str(folder), "--epochs=2"])
        run = Run.build(folder, options)
        run.resume()
        run.fit()
    elif name == "bounds.json":
        if rng.random() < 0.5:
            compare_runs([str(folder), str(folder.parent.parent / "base")])
        else:
            run_page.write(folder)
    elif name == "best.pt" and rng.random() < 0.5:
        Run.open(folder)
    else:
        trained = pyro_vae.load(folder)
        x = torch.rand(3, 8, 8).mul(16).round().numpy()
        trained.score(x, 4)


def _change(rng: Random, state: Any) -> None:
    """Replace a value somewhere in nested dictionaries and lists."""
    while isinstance(state, dict | list) and state:
        key = rng.choice([*state]) if isinstance(state, dict) else rng.randrange(len(state))
        if not isinstance(state[key], dict | list) or not state[key] or rng.random() < 0.2:
            odd = [None, 3, "x", [], {}, torch.zeros(2), torch.full((3,), torch.nan), -1.5, 10**30]
            if rng.random() < 0.3:
                del state[key]
            else:
                state[key] = rng.choice(odd)
            return
        state = state[key]


ATTEMPTS = {"data": of_data, "options": of_options, "configs": of_config, "runs": of_run}
sys.path += [str(Path(__file__).parents[1] / each) for each in ("", "runs")]  # test_trust
