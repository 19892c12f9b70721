"""What the command line makes of errors: one line, with the option to change."""

import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from pkgutil import resolve_name

import pyro
import pyro.distributions as dist
import pytest
from conftest import ROOT
from jsonargparse import Namespace
from pyro import poutine

from pyro_vae import InputError, data
from pyro_vae.errors import DivergenceError
from pyro_vae.runs import command_line, commands, config, parser, part_names, training_help, trust
from pyro_vae.runs.command_line import one_line_errors
from pyro_vae.runs.options import Options
from pyro_vae.runs.parser import explain

PRIORS = ("LearnedNormal, ", "StandardNormal, ", "StudentT, ", "Vamp")
OWN = "or give the import path of your own class"


@pytest.mark.parametrize(
    ("arguments", "sentence", "parts"),
    [
        # The message does not name an option.
        (["--nonsense", "3"], "unrecognized arguments: --nonsense 3", ["--nonsense 3"]),
        # A value of a wrong type.
        (
            ["--batch_size", "x"],
            "Parser key \"batch_size\":\n  Expected a <class 'int'>. Got value: x",
            ["--batch_size: expected a whole number, but got x"],
        ),
        # The same, of an option that may have no value.
        (
            ["--epochs", "x"],
            'Parser key "epochs":\n  Does not validate against any of the Union subtypes\n'
            "  Subtypes: [<class 'int'>, <class 'NoneType'>]\n  Errors:\n"
            "    - Expected a <class 'int'>\n    - Expected a <class 'NoneType'>\n"
            "  Given value type: <class 'str'>\n  Given value: x",
            ["--epochs: expected a whole number, but got x"],
        ),
        # An option of a part that may be left out, and was.
        (
            ["--average.decay", "3"],
            'Parser key "average":\n  Does not validate against any of the Union subtypes\n'
            "  Subtypes: [collections.abc.Callable[[], Averaging], <class 'NoneType'>]\n  Errors:\n"
            "    - Type Callable[[], Averaging] expects a function or a callable class: Dict must "
            "include a class_path and optionally init_args, but got NestedArg(key='decay')\n"
            "    - Expected a <class 'NoneType'>\n"
            "  Given value type: <class 'NestedArg'>\n  Given value: NestedArg(key='decay')",
            ["--average: no class is named that takes the option 'decay': choose EMA, TailMean"],
        ),
        # None of the choices.
        (
            ["--binarization", "random"],
            'Parser key "binarization":\n'
            "  Expected a typing.Literal['dynamic', 'static', 'threshold']. Got value: random",
            ["--binarization: choose dynamic, static or threshold, not random"],
        ),
        # A file that does not exist.
        (
            ["--config", "none.yaml"],
            "Parser key \"config\": File does not exist: 'none.yaml'",
            ["--config: File does not exist:", "none.yaml"],
        ),
        # No class of this name.
        (
            ["--prior", "Vam"],
            'Parser key "prior":\n  Expected a dot import path string: Vam',
            ["--prior: there is no 'Vam': choose ", *PRIORS, f"{OWN}: did you mean Vamp?"],
        ),
        # No module of this name.
        (
            ["--prior", "nowhere.Prior"],
            'Parser key "prior":\n  Type collections.abc.Callable[[int], Prior] expects a function '
            "or a callable class: No module named 'nowhere'. Got value: nowhere.Prior",
            [
                "--prior: No module named 'nowhere'",
                *PRIORS,
                f"{OWN}; run the command in its folder",
            ],
        ),
        # A number where several are expected.
        (
            ["--likelihood.decoder.widths", "50"],
            'Parser key "likelihood":\n  --decoder.widths: expected numbers in brackets, such as '
            "[50]. Got: 50",
            ["--likelihood.decoder.widths: expected numbers in brackets, such as [50]. Got: 50"],
        ),
        # A class with its options beside its name.
        (
            ["--prior", "{class_path: Vamp, foo: 1}"],
            "Parser key \"prior\":\n  Option 'class_path' is not accepted",
            ["--prior: a class has its options in init_args, as in {class_path: NAME, init_args:"],
        ),
        # A class of another kind.
        (
            ["--prior", "torch.nn.Linear"],
            'Parser key "prior":\n  Type collections.abc.Callable[[int], Prior] expects a function '
            "or a callable class: Expected 'torch.nn.Linear' to be a subclass of <class 'Prior'>.",
            ["--prior: Expected 'torch.nn.Linear' to be a subclass of Prior", *PRIORS, OWN],
        ),
        # An option that the class does not have.
        (
            ["--prior", "Vamp", "--prior.component", "3"],
            "Parser key \"prior\":\n  Vamp has no option 'component': did you mean components?",
            [
                "--prior: Vamp has no option 'component', see --prior.help Vamp for its options: "
                "did you mean --prior.components?"
            ],
        ),
        # The same, from the parser of a component.
        (
            ["--posterior.encoder.width", "3"],
            'Parser key "posterior":\n'
            "  --encoder: MLP has no option 'width', see --encoder.help MLP for its options: did "
            "you mean --encoder.widths?",
            [
                "--posterior.encoder: MLP has no option 'width', see --posterior.encoder.help MLP "
                "for its options: did you mean --posterior.encoder.widths?"
            ],
        ),
        # The same, for a component that has the class of an outer one.
        (
            ["--prior", "Hierarchical", "--prior.top", "Vamp", "--prior.top.comp", "3"],
            "Parser key \"prior\":\n  --top: Vamp has no option 'comp', see --top.help Vamp for "
            "its options: did you mean --top.components?",
            [
                "--prior.top: Vamp has no option 'comp', see --prior.help Vamp for its options: "
                "did you mean --prior.top.components?"
            ],
        ),
        # One that is like no other.
        (
            ["--prior", "Vamp", "--prior.zzz", "3"],
            "Parser key \"prior\":\n  Vamp has no option 'zzz'",
            ["--prior: Vamp has no option 'zzz', see --prior.help Vamp for its options"],
        ),
        # The help of a class that does not exist.
        (
            ["--prior.help", "Vmp"],
            "--prior.help: Expected a dot import path string: Vmp",
            ["--prior: there is no 'Vmp': choose ", *PRIORS, f"{OWN}: did you mean Vamp?"],
        ),
        # A value of a wrong type, from the parser of a component.
        (
            ["--prior", "Vamp", "--prior.components", "x"],
            'Parser key "prior":\n  --components: expected a whole number, but got x',
            ["--prior.components: expected a whole number, but got x"],
        ),
        # No class of this name, from the parser of a component.
        (
            ["--prior", "Hierarchical", "--prior.top", "Vam"],
            'Parser key "prior":\n  --top: Expected a dot import path string: Vam',
            ["--prior.top: there is no 'Vam': choose ", *PRIORS, f"{OWN}: did you mean Vamp?"],
        ),
    ],
    ids=lambda value: None if not isinstance(value, list) else " ".join(value[:4]),
)
def test_sentences_of_jsonargparse(
    arguments: list[str], sentence: str, parts: Sequence[str]
) -> None:
    """Each sentence is rewritten, and jsonargparse still says it of these arguments."""
    for part in parts:
        assert part in explain(sentence)
    with pytest.raises(InputError) as error:
        config.parse(arguments)
    for part in parts:
        assert part in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--epohcs", "2"], "unrecognized arguments: --epohcs 2: did you mean --epochs?"),
        (["--epoch", "2"], "unrecognized arguments: --epoch 2: did you mean --epochs?"),
        (["--latent-dim=2"], "unrecognized arguments: --latent-dim=2: did you mean --latent_dim?"),
        (["--EPOCHS", "2"], "unrecognized arguments: --EPOCHS 2: did you mean --epochs?"),
        (["--xyzzy", "2"], "unrecognized arguments: --xyzzy 2"),
        (
            ["--prioor.components", "2"],
            "unrecognized arguments: --prioor.components 2: did you mean --prior.components?",
        ),
        (
            ["--likelihood.decodr.widths=[3]"],
            "--likelihood: ByKind has no option 'decodr.widths', see --likelihood.help ByKind for "
            "its options: did you mean --likelihood.decoder.widths?",
        ),
        (["--config", "options.yaml"], "there is no option 'epohcs': did you mean epochs?"),
    ],
)
def test_misspelt_options(
    arguments: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("options.yaml").write_text("epohcs: 3\n")
    with pytest.raises(InputError) as error:
        config.parse(arguments)
    assert str(error.value) == message


@pytest.mark.parametrize("name", ["vamp", "Vampp", "VAMP"])
def test_misspelt_classes(name: str) -> None:
    for option in ("--prior", "--prior.help"):
        with pytest.raises(InputError) as error:
            config.parse([option, name])
        assert str(error.value).startswith(f"--prior: there is no '{name}': choose AR1, ")
        assert str(error.value).endswith(": did you mean Vamp?")


def test_options_of_other_verbs_are_not_abbreviated() -> None:
    for typed, meant in (("--ais.chian", "--ais.chains"), ("--num_sam", "--num_samples")):
        with pytest.raises(InputError) as error:
            command_line.parse_evaluation(["run", typed, "3"])
        assert str(error.value).endswith(f"{typed} 3: did you mean {meant}?")


@pytest.mark.parametrize(
    ("parameter", "printed"),
    [
        ("data_root", "error: wrong (option --data_root)\n"),
        ("prior", "error: wrong (option --prior)\n"),
        ("components", "error: wrong (option --prior.components)\n"),
        (
            "widths",
            "error: wrong (option --likelihood.decoder.widths or --posterior.encoder.widths)\n",
        ),
        ("something", "error: wrong\n"),
        (None, "error: wrong\n"),
    ],
)
def test_the_option_of_an_argument_is_named(
    parameter: str | None, printed: str, capsys: pytest.CaptureFixture[str]
) -> None:
    options = config.parse(["--prior", "Vamp"])
    with pytest.raises(SystemExit) as stop, one_line_errors(options):
        raise InputError("wrong", parameter)
    assert stop.value.code == 2 and capsys.readouterr().err == printed


def test_an_option_is_named_once(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit), one_line_errors(Namespace(lr=1.0)):
        raise InputError("--lr is wrong", "lr")
    assert capsys.readouterr().err == "error: --lr is wrong\n"


def test_errors_inside_programs_are_printed_without_shapes(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Pyro adds the shapes of all sites, and forgets the parameter, once for each trace."""

    def program() -> None:
        pyro.sample("a name that is long", dist.Normal(0.0, 1.0))
        raise InputError("a wrong value", "lr")

    with pytest.raises(SystemExit), one_line_errors(Namespace(lr=1.0)):
        poutine.trace(poutine.trace(program).get_trace).get_trace()
    assert capsys.readouterr().err == "error: a wrong value (option --lr)\n"


@pytest.mark.parametrize(
    ("error", "code", "printed"),
    [
        (DivergenceError("the loss\nbecame nan"), 2, "error: the loss became nan\n"),
        (MemoryError(), 2, "error: there is not enough memory for these options: "),
        (RuntimeError("CUDA out of memory"), 2, "error: there is not enough memory"),
        (KeyboardInterrupt(), 130, "\ninterrupted - try again\n"),
    ],
)
def test_errors_are_one_line(
    error: BaseException, code: int, printed: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop, one_line_errors(if_interrupted="- try again"):
        raise error
    assert stop.value.code == code and capsys.readouterr().err.startswith(printed)


def test_errors_of_the_code_are_not_hidden() -> None:
    with pytest.raises(RuntimeError, match="shape"), one_line_errors():
        raise RuntimeError("shape mismatch")


def test_a_plan_has_the_options_of_an_evaluation() -> None:
    options = command_line.parse_evaluation(
        ["run", "--method", "ais", "--ais.chains", "3", "--subset", "4", "--checks", "0"]
    )
    plan = command_line.make_plan(options)
    assert (options.run, plan.method, plan.ais.chains) == ("run", "ais", 3)
    assert (plan.subset, plan.checks, plan.draws) == (4, 0, 10)


@pytest.mark.parametrize("verb", ["", *commands.VERBS])
def test_help_and_errors_of_options_need_no_torch(verb: str) -> None:
    code = f"""
import contextlib, sys
from pyro_vae.runs import commands
for argument in ["--help", *([] if "{verb}" == "train" else ["--nonsense"])]:
    try:
        commands.main([*{verb.split()}, argument])
    except SystemExit:
        pass
print([name for name in ("torch", "pyro", "numpy", "scipy") if name in sys.modules])
"""
    out = subprocess.check_output([sys.executable, "-c", code], text=True, stderr=subprocess.STDOUT)
    assert "usage: pyro-vae" in out
    assert out.splitlines()[-1] == "[]"


def test_what_is_missing_is_named() -> None:
    said = explain("the following arguments are required: run, out, count")
    assert said == "run, --out, --count are missing: see --help"


def test_help_of_a_part_without_a_name(capsys: pytest.CaptureFixture[str]) -> None:
    """It lists the classes; if the class is typed beside it, it describes that one."""
    asked = config.parser()
    with pytest.raises(SystemExit) as stop:
        asked.parse_args(["--prior.help"])
    assert stop.value.code == 0
    assert "--prior takes AR1, " in capsys.readouterr().out
    with pytest.raises(SystemExit):
        asked.parse_args(["--prior", "Vamp", "--prior.help"])
    assert "--prior.components" in capsys.readouterr().out


def test_help_of_training_is_that_of_its_options() -> None:
    """The page is read from the source; what is said there is what the parser takes."""
    real, options = Options(), training_help.options()
    assert [option.name for option in options] == list(config.NAMES)
    for option in options:
        default = getattr(real, option.name)
        assert option.default == getattr(default, "__name__", str(default))
    assert set(part_names.PARTS) == {*trust.COMPONENTS, "network"}
    for name in trust.COMPONENTS:
        parts = part_names.PARTS[parser.COMPONENTS[name]]
        base = resolve_name(f"{parts.package}:{parts.base}")
        classes = [each for each in map(resolve_name, trust.classes()) if issubclass(each, base)]
        names = sorted(each.__name__ for each in classes if each is not base)
        assert part_names.part_names(name) == names
    page = training_help.page()
    typed = re.findall(r"^  (?:-h, )?(--\w+)", config.parser().format_help(), re.MULTILINE)
    assert set(re.findall(r"^  (?:-h, )?(--\w+)", page, re.MULTILINE)) == set(typed)
    at = [page.index(f"--{name} ") for name in ("data", "prior", "epochs", "lr")]
    assert at == sorted(at)
    assert "--engine {auto,compiled,eager}" in page and "(default: StandardNormal)" in page


def test_help_of_training_with_other_options_is_quick() -> None:
    """It imports no library that only a part of the work needs."""
    code = """
import runpy, sys
sys.argv = ["svi_train", "--prior", "Vamp", "--help"]
try:
    runpy.run_path("scripts/svi_train.py", run_name="__main__")
except SystemExit:
    pass
slow = ("matplotlib", "arviz", "sklearn", "torchvision", "xarray", "pandas")
print([name for name in slow if name in sys.modules])
"""
    out = subprocess.check_output([sys.executable, "-c", code], cwd=ROOT, text=True)
    assert "--prior" in out and out.splitlines()[-1] == "[]"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--epohcs", "2"], "error: unrecognized arguments: --epohcs 2: did you mean --epochs?"),
        (["--resmue=r"], "error: unrecognized arguments: --resmue=r: did you mean --resume?"),
        (
            ["--data", "tabel.csv"],
            "error: there is no file tabel.csv (option --data): did you mean table.csv?",
        ),
        (["--data=folder/x.NPZ"], "error: there is no file folder/x.NPZ (option --data)"),
    ],
)
def test_what_is_misspelt_in_training_needs_no_torch(
    arguments: list[str], said: str, tmp_path: Path
) -> None:
    (tmp_path / "table.csv").touch()
    assert train_without_torch(arguments, tmp_path) == said


@pytest.mark.parametrize("option", ["--prior", "--prior.help"])
def test_misspelt_classes_of_training_need_no_torch(option: str, tmp_path: Path) -> None:
    with pytest.raises(InputError) as error:
        config.parse([option, "vmp"])
    assert train_without_torch([option, "vmp"], tmp_path) == f"error: {error.value}"


def train_without_torch(arguments: list[str], folder: Path) -> str:
    """Return the line that training ends with, before it imports PyTorch."""
    code = f"""
import sys
from pyro_vae.runs import commands
try:
    commands.main(["train", *{arguments}])
except SystemExit as stop:
    assert stop.code == 2 and "torch" not in sys.modules
"""
    command = [sys.executable, "-c", code]
    ran = subprocess.run(command, capture_output=True, text=True, check=True, cwd=folder)
    return ran.stderr.rstrip("\n")


def test_what_exists_is_not_misspelt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Training's parser and its readers look at what passes."""
    monkeypatch.delitem(sys.modules, "torch")  # as when training begins
    with pytest.raises(InputError, match="there is no 'Own': choose Bernoulli"):
        training_help.refuse_misspelt(["--posterior", "Own"])
    table = tmp_path / "table.csv"
    table.touch()
    for arguments in (
        [],
        ["--resume", "r", "--config=c.yaml", "--quiet", "--trust_code", "--out", "o", "--help"],
        [f"--data={table}", "--likelihood.decoder.widths+=3", "--columns.mass", "real"],
        ["--prior", "Prior", "--likelihood", "Given", "--average", "null", "--log", "wandb"],
        ["--prior", "own.Prior", "--posterior", "Own", "--print_config"],
        ["--data", "tabel", "--data_root", "none"],
    ):
        training_help.refuse_misspelt(arguments)


def test_files_of_data_have_the_suffixes_that_are_read() -> None:
    assert {name for name in data.SOURCES if name[0] == "."} == set(training_help.FILES)
