"""A run is built from its options, before it is trained."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import ROOT

from pyro_vae import VAE, InputError, checkpoint, data
from pyro_vae.kinds import Binary
from pyro_vae.runs import command_line, config, options
from pyro_vae.runs.run import Run
from pyro_vae.training import CompiledEngine, EagerEngine


def build(*arguments: str) -> Run:
    return Run.build(Path("nowhere"), config.parse(["--device", "cpu", *arguments]))


@pytest.mark.parametrize("method", ["dynamic", "static", "threshold"])
def test_data_and_start(method: str) -> None:
    digits = data.load("digits", seed=5)
    run = build("--data_seed", "5", "--binarization", method)
    if method == "dynamic":
        assert torch.equal(run.train, digits.train)
    else:
        assert set(run.train.unique().tolist()) == {0, 16}
    for shown, stored in ((run.validation, digits.validation), (run.test, digits.test)):
        assert set(shown.unique().tolist()) == {0.0, 1.0}
        assert torch.equal(shown[stored == 16], torch.ones_like(shown[stored == 16]))
        if method == "threshold":
            assert torch.equal(shown, (stored > 8).float())
    mean = Binary(levels=17).stored_features(run.train).mean(0).clamp(0.001, 0.999)
    torch.testing.assert_close(run.vae.likelihood.decoder.bias.sigmoid(), mean)


def test_held_out_sets_share_no_noise(tmp_path: Path) -> None:
    """Pixels of half intensity are equal in half of the places; with shared noise all would be."""
    np.save(tmp_path / "grey.npy", np.full((100, 8, 8), 128, dtype=np.uint8))
    given = ["--data", str(tmp_path / "grey.npy"), "--batch_size", "9"]
    run = build(*given, "--likelihood", "Bernoulli")
    count = min(len(run.validation), len(run.test))
    alike = (run.validation[:count] == run.test[:count]).double()
    assert abs(alike.mean() - 0.5) < 4.5 * 0.5 / alike.numel() ** 0.5 < 0.1


def test_options_reach_the_parts() -> None:
    run = build(
        *("--prior", "Vamp", "--prior.components", "9", "--latent_dim", "3"),
        *("--likelihood", "Gaussian", "--likelihood.scale", "0.3"),
        *("--likelihood.noise", "fixed", "--likelihood.decoder.widths=[7]"),
        *("--objective", "ELBO", "--objective.beta", "2", "--objective.warmup", "5", "--lr", "0.1"),
    )
    assert run.vae.prior.pseudo_inputs.shape == (9, 8, 8)
    assert run.vae.posterior.latent_dim == 3
    assert run.vae.likelihood.log_scale.exp().item() == pytest.approx(0.3)
    assert run.vae.likelihood.decoder.body[1].out_features == 7
    assert (run.engine.objective.beta, run.engine.objective.warmup) == (2.0, 5.0)
    assert run.engine.optimizer.param_groups[0]["lr"] == 0.1
    assert run.train.dtype == torch.uint8 and run.validation.unique().numel() > 1000


def test_a_new_run_has_a_warmup(tmp_path: Path) -> None:
    """A quarter of training, unless the user says otherwise; the run keeps it."""
    run = build("--epochs", "100")
    assert run.engine.objective.warmup == 25 and run.engine.objective.kl_weight == 0
    assert "first 25 % of training" in str(run)
    run.folder = tmp_path / "run"
    run.create()
    config_file = run.folder / "config.yaml"
    again = Run.build(run.folder, config.parse([f"--config={config_file}", "--epochs=400"]))
    assert again.engine.objective.warmup == 25 and "25 %" not in str(again)
    layers = ("--prior", "Hierarchical", "--posterior", "Ladder", "--posterior.top_dim=[3, 2]")
    for given, epochs, share in (
        ((), 50, 0),
        (("--budget", "2min"), 0, 0.25),
        (("--budget", "29s"), 0, 0),
        (("--epochs", "33"), 0, 0),  # 495 steps
        (("--epochs", "34"), 8.5, 0),
        ((*layers, "--epochs", "4"), 1, 0),
        (("--objective.warmup", "0"), 0, 0),
        (("--objective.warmup", "7"), 7, 0),
        (("--objective.warmup_share", "0"), 0, 0),
        (("--objective.warmup_share", "0.1"), 0, 0.1),
        (("--objective", "AnalyticELBO"), 50, 0),
        (("--objective", "IWAE"), None, None),
        (("--objective.beta", "0"), 0, 0),
        (("--aggressive", "3"), 0, 0),
        (("--init_from", "other"), 0, 0),  # its parameters have been trained
    ):
        run = build(*given)
        objective = run.engine.objective
        assert getattr(objective, "warmup", None) == epochs, given
        assert getattr(objective, "warmup_share", None) == share, given
        was_chosen = not any("warmup" in each for each in given) and bool(epochs or share)
        assert ("25 %" in str(run)) == was_chosen, given


def test_a_short_run_is_repeated_without_a_warmup(tmp_path: Path) -> None:
    run = build("--epochs", "2")
    run.folder = tmp_path / "run"
    run.create()
    options = [f"--config={run.folder / 'config.yaml'}", "--epochs=200"]
    again = Run.build(run.folder, config.parse(options))
    assert again.engine.objective.warmup == again.engine.objective.warmup_share == 0


def test_an_older_run_without_a_warmup_is_resumed_without_one(tmp_path: Path) -> None:
    run = build("--objective.warmup_share", "0")
    run.folder = tmp_path / "run"
    run.create()
    config_file = run.folder / "config.yaml"
    text = config_file.read_text()
    assert "warmup_share: 0" in text
    config_file.write_text(re.sub("warmup_share: 0.*", "warmup_share: null", text))
    resumed = Run.build(run.folder, command_line.parse_training(["--resume", str(run.folder)]))
    assert resumed.engine.objective.warmup == resumed.engine.objective.warmup_share == 0


def test_few_examples_are_one_batch_unless_its_size_is_given(tmp_path: Path) -> None:
    table = tmp_path / "table.npy"
    np.save(table, np.random.default_rng(0).normal(size=(61, 3)))
    given = ["--data", str(table), "--epochs", "2"]
    run = build(*given)
    count = len(run.train)
    assert count < 61 and run.options.batch_size == run.namespace.batch_size == count
    note = f"Each step takes all {count} training examples"
    assert note in str(run)
    run.folder = tmp_path / "run"
    run.create()
    config_file = run.folder / "config.yaml"
    assert f"batch_size: {count}\n" in config_file.read_text()
    assert note not in str(build(f"--config={config_file}"))
    resumed = command_line.parse_training(["--resume", str(run.folder)])
    assert Run.build(run.folder, resumed).options.batch_size == count
    config_file.write_text("batch_size: 100\n")
    for too_large in (["--batch_size", "100"], [f"--config={config_file}"]):
        with pytest.raises(InputError, match=f"100 is more than the {count} training examples"):
            build(*too_large, *given)
    fewer = build(*given, "--batch_size", "9")
    assert fewer.options.batch_size == 9 and "Each step takes" not in str(fewer)
    assert build().options.batch_size == 100 and "Each step takes" not in str(build())


def test_folder_is_made_once_and_whole(tmp_path: Path) -> None:
    run = build()
    run.folder = tmp_path / "deep" / "run"
    run.create()
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["run"]
    again = config.read(run.folder / "config.yaml")
    for name in options.Options.__dataclass_fields__:
        if name != "data_root":
            assert again[name] == run.namespace[name]
    assert Path(again["data_root"]).is_absolute()
    with pytest.raises(InputError, match="exists already"):
        run.create()


@pytest.mark.parametrize("form", ["--objective IWAE", "--objective=IWAE", "--config own.yaml"])
def test_a_class_that_is_named_has_its_own_defaults(
    form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It does not have those of the default class, which has a single particle."""
    monkeypatch.chdir(tmp_path)
    Path("own.yaml").write_text("objective: IWAE\n")
    assert build(*form.split()).engine.objective.num_particles == 5
    assert (
        build(*form.split(), "--objective.num_particles", "3").engine.objective.num_particles == 3
    )
    assert build("--objective", "TVO").engine.objective.num_particles == 20
    assert build().engine.objective.num_particles == 1


@pytest.mark.parametrize("recipe", sorted((ROOT / "scripts/recipes").rglob("*.yaml")), ids=str)
def test_recipes_are_understood(recipe: Path) -> None:
    chosen = config.instantiate(config.parse(["--config", str(recipe)]))
    assert chosen.data == "mnist"
    prior, posterior = chosen.prior(4), chosen.posterior([28, 28], 4)
    VAE(prior, chosen.likelihood(4, [28, 28]), posterior)
    assert f"--config scripts/recipes/{recipe.relative_to(ROOT / 'scripts/recipes')}" in (
        recipe.read_text()
    )


@pytest.mark.parametrize(
    ("asked", "epochs", "taken", "falls_back"),
    [
        ("auto", "466", "eager", None),  # 6,990 steps, 15 in an epoch
        ("auto", "467", "compiled", True),
        ("compiled", "1", "compiled", False),
        ("eager", "1000", "eager", None),
    ],
)
def test_the_engine(asked: str, epochs: str, taken: str, falls_back: bool | None) -> None:
    run = build("--engine", asked, "--epochs", epochs, "--precision", "bfloat16")
    kind = {"eager": EagerEngine, "compiled": CompiledEngine}[taken]
    assert type(run.engine) is kind and run.engine.precision == "bfloat16"
    assert getattr(run.engine, "fall_back", None) is falls_back
    assert f"by the {taken} engine" in str(run)
    assert run.namespace.engine == taken  # a resumed run continues with it


def test_training_starts_from_another_run(tmp_path: Path) -> None:
    small = ["--latent_dim", "2", "--epochs", "2", "--engine", "eager"]
    first = Run.build(tmp_path / "first", config.parse([*small, "--device", "cpu"]))
    first.create()
    history = first.fit()
    grey = data.load("digits").test.numpy()
    np.save(tmp_path / "other.npy", np.concatenate([grey[::-1]] * 2))
    other = ["--data", str(tmp_path / "other.npy"), "--likelihood", "Bernoulli", *small]
    other += ["--device", "cpu", "--init_from", str(tmp_path / "first")]
    second = Run.build(tmp_path / "second", config.parse(other))
    second.create()
    for name, parameter in first.vae.named_parameters():
        assert parameter.equal(dict(second.vae.named_parameters())[name])
    assert second.vae.training
    # Also if it ends before the first checkpoint, and is resumed.
    namespace = config.read(tmp_path / "second" / "config.yaml", False)
    resumed = Run.build(tmp_path / "second", namespace, same_data=True)
    resumed.resume()
    for name, parameter in first.vae.named_parameters():
        assert parameter.equal(dict(resumed.vae.named_parameters())[name])
    assert second.fit()[0]["train_loss"] < history[0]["train_loss"]
    assert Run.open(tmp_path / "second").options.init_from == str(tmp_path / "first")
    for wrong in ("nowhere", str(tmp_path / "second" / "figures")):
        with pytest.raises(InputError, match="training cannot start from") as caught:
            Run.build(tmp_path / "x", config.parse([*other[:-1], wrong])).create()
        assert caught.value.parameter == "init_from" and not (tmp_path / "x").exists()
    narrow = [*other, "--latent_dim", "3"]
    with pytest.raises(InputError, match="the same parts"):
        Run.build(tmp_path / "x", config.parse(narrow)).create()


def test_parameters_are_tried_when_they_are_loaded(tmp_path: Path) -> None:
    """Nothing is drawn for it; a scale of zero is refused in one line."""
    run = build("--prior", "LARS", "--latent_dim", "2")
    state = {"model": run.vae.model.state_dict(), "guide": run.vae.guide.state_dict()}
    checkpoint.save(tmp_path / "best.pt", state)
    run.folder = tmp_path
    before = torch.get_rng_state()
    run.load_best()
    assert torch.equal(torch.get_rng_state(), before) and not run.vae.training
    [name] = [name for name in state["model"] if name.endswith("proposal.scale")]
    state["model"][name] = torch.zeros(2)
    checkpoint.save(tmp_path / "best.pt", state)
    with pytest.raises(InputError, match="does not fit the model"):
        run.load_best()
