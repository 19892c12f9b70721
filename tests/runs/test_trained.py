"""A run's folder is all that is needed: its model scores as its evaluation does, without the data.

The data files are deleted, and the folders are moved, before the models are loaded.
"""

import dataclasses
from pathlib import Path

import numpy as np
import pandas as pd
import pyro
import pytest
import torch

import pyro_vae
from pyro_vae import InputError, bounds, data
from pyro_vae.bounds import Estimate, Settings
from pyro_vae.runs import config, evaluation
from pyro_vae.runs.applying import Trained
from pyro_vae.runs.applying.exported import export
from pyro_vae.runs.applying.own_form import in_own_form
from pyro_vae.runs.run import Run
from pyro_vae.runs.validation_scores import ValidationScores

SMALL = ["--num_samples", "120", "--num_examples", "20", "--device", "cpu", "--engine", "eager"]
SMALL += ["--latent_dim", "2", "--epochs", "2", "--batch_size", "40", "--seed", "3"]
draw = np.random.default_rng(0)


def train(folder: Path, *arguments: object) -> Run:
    run = Run.build(folder / "run", config.parse([*SMALL, *map(str, arguments)]))
    run.create()
    run.fit()
    return run


def load(run: Run) -> Trained:
    """Delete the data, move the run, and load it."""
    Path(run.options.data).unlink(missing_ok=True)
    moved = run.folder.rename(run.folder.with_name("moved"))
    return pyro_vae.load(moved)


def evaluated(run: Run) -> tuple[Estimate, bounds.Bounds]:
    found = evaluation.evaluate(run).importance
    return run.on_base_measure(found.bound), found


def mixed_table(rows: int = 300) -> pd.DataFrame:
    table = pd.DataFrame(
        {
            "visits": draw.poisson(30, rows),
            "income": np.exp(draw.normal(10, 0.6, rows)).round(2),
            "city": draw.choice(["Rome", "Oslo", "Bern"], rows),
            "height": draw.normal(170, 10, rows).round(2),
            "smoker": draw.choice([True, False], rows),
            "grade": draw.choice([1, 2, 5], rows),
        }
    )
    return table


def with_holes(table: pd.DataFrame, share: float = 0.15) -> pd.DataFrame:
    return table.mask(draw.random(table.shape) < share)


def make(name: str, folder: Path) -> Run:
    """Train a run on data of a name."""
    match name:
        case "reals":
            np.save(folder / "a.npy", draw.normal(size=(300, 4)) @ draw.normal(size=(4, 4)))
            return train(folder, "--data", folder / "a.npy")
        case "counts":
            np.save(folder / "a.npy", draw.poisson(40, (300, 5)).cumsum(1))
            return train(folder, "--data", folder / "a.npy")
        case "table":
            mixed_table().to_csv(folder / "a.csv", index=False)
            return train(folder, "--data", folder / "a.csv")
        case "holes":
            with_holes(mixed_table()).to_csv(folder / "a.csv", index=False)
            return train(folder, "--data", folder / "a.csv")
        case "given":
            table = mixed_table()
            table["height"] = table["height"].mask(draw.random(len(table)) < 0.2)
            table.to_csv(folder / "a.csv", index=False)
            return train(folder, "--data", folder / "a.csv", "--condition", "city, visits")
        case "levels":
            np.save(folder / "a.npy", draw.integers(0, 256, (200, 5, 4), dtype=np.uint8))
            return train(folder, "--data", folder / "a.npy")
        case "dequantised":
            np.save(folder / "a.npy", draw.integers(0, 256, (200, 5, 4), dtype=np.uint8))
            return train(folder, "--data", folder / "a.npy", "--likelihood", "Beta")
        case "pixel by pixel":
            np.save(folder / "a.npy", draw.integers(0, 4, (100, 4, 4), dtype=np.uint8))
            return train(folder, "--data", folder / "a.npy", "--likelihood", "PixelCNN")
        case "floats":
            np.save(folder / "a.npy", draw.random((200, 3, 5, 4)).astype(np.float32))
            return train(folder, "--data", folder / "a.npy", "--likelihood", "Gaussian")
    raise ValueError(name)


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, Trained]:
    run = train(tmp_path_factory.mktemp("digits"), "--data", "digits", "--epochs", "20")
    return run, load(run)


@pytest.mark.parametrize("name", ["reals", "counts", "table", "holes", "given", "floats", "levels"])
def test_scores_are_those_of_the_evaluation(name: str, tmp_path: Path) -> None:
    run = make(name, tmp_path)
    expected, found = evaluated(run)
    rows = in_own_form(run.form, run.test[run.evaluated])
    model = load(run)
    scores = model.score(rows, 120)
    np.testing.assert_array_equal(scores.log_p, expected.values)
    np.testing.assert_array_equal(scores.mc_se, found.bound.mc_variance.sqrt().numpy())
    np.testing.assert_array_equal(scores.khat, found.khat)
    assert scores.base_measure == run.base_measure.name
    assert ((scores.percentile >= 0) & (scores.percentile <= 100)).all()
    # Rows in another order have the same scores, up to the errors of their own draws.
    few = model.score(rows[::-1] if isinstance(rows, np.ndarray) else rows.iloc[::-1], 120)
    error = np.hypot(few.mc_se[::-1], scores.mc_se)
    known = ~np.isnan(error)
    distance = np.abs(few.log_p[::-1] - scores.log_p)
    assert (distance[known] < 5 * error[known] + 1e-4).all() and (distance < 3).all()
    one = model.score(rows[:1], 120)
    assert one.log_p.shape == (1,) and abs(one.log_p[0] - scores.log_p[0]) < 3


def test_dequantised_levels_are_scored_up_to_their_noise(tmp_path: Path) -> None:
    run = make("dequantised", tmp_path)
    stored = data.load(str(tmp_path / "a.npy")).test.numpy()
    expected, _ = evaluated(run)
    scores = load(run).score(stored, 120, noise_seed=None)
    order = run.evaluated.numpy()
    assert scores.base_measure == "256 levels"  # the shift is in them
    np.testing.assert_allclose(scores.log_p[order], expected.values, atol=0.5)


def test_digits_are_scored_up_to_the_draws_of_their_pixels(digits: tuple[Run, Trained]) -> None:
    run, model = digits
    stored = data.load("digits").test
    order = run.evaluated.numpy()
    expected, found = evaluated(dataclasses.replace(run, folder=model.folder))
    assert torch.equal(model.observe(stored, noise_seed=None), run.test)
    scores = model.score(stored, 120, noise_seed=None)
    error = np.hypot(scores.mc_se[order], found.bound.mc_variance.sqrt().numpy())
    known = ~np.isnan(error)
    distance = np.abs(scores.log_p[order] - expected.values.numpy())
    assert (distance[known] < 5 * error[known]).all() and (distance < 1).all()
    for same in (stored.double(), stored.numpy().astype(np.int16), stored.numpy().astype(">f4")):
        again = model.score(same, 120, noise_seed=None)
        np.testing.assert_array_equal(again.log_p, scores.log_p)


def test_the_pixels_of_a_row_depend_on_the_row_alone(digits: tuple[Run, Trained]) -> None:
    _, model = digits
    stored = data.load("digits").test
    order = torch.randperm(len(stored))
    shown = model.observe(stored)
    assert torch.equal(model.observe(stored[order]), shown[order])
    assert torch.equal(model.observe(stored[7:8].double()), shown[7:8])
    other = model.observe(stored, noise_seed=1)
    grey = (stored > 0) & (stored < 16)
    p = stored[grey] / 16
    for draws in (shown[grey], other[grey]):
        z = (draws - p).sum() / (p * (1 - p)).sum().sqrt()
        assert abs(z) < 4.5
    agree = (shown[grey] == other[grey]).double().mean()
    assert agree == pytest.approx((p**2 + (1 - p) ** 2).mean().item(), abs=0.03)
    scores, mixed = model.score(stored, 500), model.score(stored[order], 500)
    error = np.hypot(scores.mc_se[order], mixed.mc_se)
    distance = np.abs(scores.log_p[order] - mixed.log_p)
    known = ~np.isnan(error)
    assert known.mean() > 0.5 and (distance[known] < 5 * error[known] + 1e-4).all()


def test_noise_scores_below_digits(digits: tuple[Run, Trained]) -> None:
    _, model = digits
    stored = data.load("digits").test[:100]
    noise = stored.flatten()[torch.randperm(stored.numel())].view(stored.shape)
    scores, of_noise = model.score(stored), model.score(noise)
    assert scores.log_p.mean() > of_noise.log_p.mean() + 10
    assert 40 < scores.percentile.mean() < 60 and of_noise.percentile.mean() < 10
    table = scores.to_frame()
    assert list(table.columns) == ["log_p", "mc_se", "khat", "percentile"]


def test_few_draws_have_no_percentile_and_annealing_has(digits: tuple[Run, Trained]) -> None:
    _, model = digits
    stored = data.load("digits").test[:12]
    few = model.score(stored, 10)
    assert few.num_samples == 10 and np.isnan(few.percentile).all()
    importance = model.score(stored)
    annealed = model.score(stored, method="ais", settings=Settings(temperatures=20, chains=8))
    np.testing.assert_array_equal(annealed.percentile, importance.percentile)
    assert annealed.upper is not None and annealed.num_samples == 8
    assert annealed.upper.mean() > annealed.log_p.mean() > importance.log_p.mean() - 0.3
    assert {"upper", "upper_mc_se"} < set(annealed.columns())
    with pytest.raises(InputError, match="method has to be importance or ais"):
        model.score(stored, method="exact")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="settings are those of annealing"):
        model.score(stored, settings=Settings())
    with pytest.raises(InputError, match="noise_seed has to be between 0"):
        model.score(stored, noise_seed=-1)
    with pytest.raises(InputError, match="draws has to be 0 or more"):
        model.encode(stored, -1)


def test_scores_of_validation_examples_are_in_the_folder(digits: tuple[Run, Trained]) -> None:
    run, model = digits
    assert model.validation is not None and len(model.validation.log_p) == len(run.validation)
    again = ValidationScores.of(run.vae, run.validation, 0, 3)
    assert torch.equal(again.log_p, model.validation.log_p)
    percentiles = model.validation.percentiles(model.validation.log_p)
    assert percentiles[0] == pytest.approx(50 / len(percentiles)) and percentiles[-1] < 100
    assert model.validation.percentiles(torch.tensor([torch.nan], dtype=torch.float64)).isnan()
    (model.folder / "scores.pt").rename(model.folder / "away.pt")
    without = pyro_vae.load(model.folder)
    assert np.isnan(without.score(data.load("digits").test[:3]).percentile).all()
    (model.folder / "away.pt").rename(model.folder / "scores.pt")


def test_codes_in_closed_form_and_from_draws(digits: tuple[Run, Trained], tmp_path: Path) -> None:
    _, model = digits
    stored = data.load("digits").test[:7]
    codes = model.encode(stored, 2000)
    assert codes.in_closed_form and codes.draws.shape == (2000, 7, 2)
    error = codes.scale / 2000**0.5
    assert (np.abs(codes.draws.mean(0) - codes.mean) < 5 * error).all()
    np.testing.assert_allclose(codes.draws.std(0), codes.scale, rtol=0.1)
    for posterior in ("Hierarchical", "Ladder", "BottomUp"):
        layers = ["--prior", "Hierarchical", "--posterior", posterior, "--posterior.top_dim=[3, 2]"]
        folder = tmp_path / posterior
        folder.mkdir()
        np.save(folder / "a.npy", draw.normal(size=(300, 3)))
        layered = load(train(folder, "--data", folder / "a.npy", *layers))
        codes = layered.encode(np.zeros((3, 3)), 4)
        assert not codes.in_closed_form and codes.draws.shape == (4, 3, 2)
        assert codes.mean.shape == codes.scale.shape == (3, 2)
        assert layered.sample(4).shape == layered.reconstruct(np.zeros((4, 3))).shape == (4, 3)
        assert np.isfinite(layered.score(np.zeros((3, 3)), num_samples=20).log_p).all()
        if posterior == "BottomUp":  # its z comes first, and depends on no other layer
            assert "encoder.pt2" in export(layered, folder / "exported")
            continue
        with pytest.raises(InputError, match="cannot be exported"):
            export(layered, folder / "exported")


def test_samples_have_the_form_of_the_data(digits: tuple[Run, Trained], tmp_path: Path) -> None:
    _, model = digits
    drawn = model.sample(600)
    assert (
        drawn.shape == (600, 8, 8) and drawn.dtype == np.uint8 and set(np.unique(drawn)) == {0, 16}
    )
    np.testing.assert_array_equal(model.sample(600), drawn)
    assert model.score(drawn).log_p.mean() > -30
    decoded = model.reconstruct(drawn[:5])
    assert decoded.shape == (5, 8, 8) and 0 <= decoded.min() and 10 < decoded.max() <= 16
    cold = model.sample(600, temperature=0.1)
    assert cold.std(0).mean() < drawn.std(0).mean()
    for arguments, said in (
        ({"n": 0}, "n has to be a whole number from 1"),
        ({"n": 10**20}, "n has to be a whole number from 1"),
        ({"n": 2, "temperature": 0.0}, "temperature has to be positive"),
        ({"n": 2.5}, "n has to be a whole number"),
        ({"n": 2, "seed": -1}, "seed has to be between 0"),
        ({"n": 2, "y": 3}, "this model has no conditions"),
    ):
        with pytest.raises(InputError, match=said):
            model.sample(**arguments)  # type: ignore[arg-type]
    model = load(make("table", tmp_path))
    table = model.sample(50)
    assert model.score(table, 20).log_p.shape == (50,)
    assert list(table.columns) == ["visits", "income", "city", "height", "smoker", "grade"]
    assert set(table["city"]) <= {"Rome", "Oslo", "Bern"} and table["visits"].dtype.kind == "i"
    assert table["smoker"].dtype == bool and set(table["grade"]) <= {1, 2, 5}


@pytest.mark.parametrize(
    "name", ["levels", "dequantised", "floats", "reals", "counts", "holes", "pixel by pixel"]
)
def test_samples_and_reconstructions_can_be_scored(name: str, tmp_path: Path) -> None:
    model = load(make(name, tmp_path))
    drawn = model.sample(20)
    if name in ("floats",):
        drawn = drawn.clip(0, 1)
    assert np.isfinite(model.score(drawn, 20).log_p).all()
    again = model.reconstruct(drawn)
    assert np.shape(again) == np.shape(drawn)
    if not isinstance(again, pd.DataFrame):
        assert np.isfinite(again).all() and (name == "reals" or again.min() >= 0)


def test_conditions_are_columns_or_given_beside_the_rows(tmp_path: Path) -> None:
    model = load(make("given", tmp_path))
    table = mixed_table(6)
    scores = model.score(table, 20)
    beside = table[["city", "visits"]]
    own = table.drop(columns=["city", "visits"])
    np.testing.assert_array_equal(model.score(own, 20, y=beside).log_p, scores.log_p)
    mapping = {"visits": beside["visits"].to_numpy(), "city": list(beside["city"])}
    np.testing.assert_array_equal(model.score(own, 20, y=mapping).log_p, scores.log_p)
    drawn = model.sample(6, beside)
    assert list(drawn.columns) == ["income", "height", "smoker", "grade", "city", "visits"]
    assert list(drawn["city"]) == list(table["city"])
    assert list(model.sample(3, {"city": "Oslo", "visits": 30})["visits"]) == [30, 30, 30]
    for y, said in (
        (None, "this model is given city, visits: give y"),
        ({"city": "Paris", "visits": 3}, "unknown categories Paris: in training they were Bern"),
        ({"city": "Oslo"}, "no column visits"),
        ({"city": "Oslo", "visits": np.nan}, "y are missing"),
        (beside, "6 conditions y for 3 rows"),
    ):
        with pytest.raises(InputError, match=said):
            model.sample(3, y)
    holes = table.assign(city=[None, *table["city"][1:]])
    with pytest.raises(InputError, match="'city' is a condition, and is missing"):
        model.score(holes)


def test_conditions_of_arrays_are_found_by_their_places(tmp_path: Path) -> None:
    array = draw.normal(size=(300, 5)) * [1, 10, 100, 1000, 10000]
    array[:, 3] = 7.0  # left out
    np.save(tmp_path / "a.npy", array)
    run = train(tmp_path, "--data", tmp_path / "a.npy", "--condition", "1,0")
    assert run.kind.names == ("2", "4", "1", "0")
    expected, _ = evaluated(run)
    test = run.test[run.evaluated].numpy()
    model = load(run)
    in_places = test[:, [3, 2, 0, 1]]
    np.testing.assert_array_equal(model.score(in_places, 120).log_p, expected.values)
    whole = np.insert(in_places, 3, 7.0, 1)
    with pytest.warns(UserWarning, match="ignored: 3"):
        np.testing.assert_array_equal(model.score(whole, 120).log_p, expected.values)
    y = in_places[:, [1, 0]]
    np.testing.assert_array_equal(model.score(test[:, :2], 120, y=y).log_p, expected.values)
    drawn = model.sample(50, y[:1])
    assert drawn.shape == (50, 4) and (drawn[:, :2] == in_places[:1, :2]).all()
    assert 10 < drawn[:, 2].std() < 1000 < drawn[:, 3].std()


def test_a_condition_may_be_a_column_of_any_name(tmp_path: Path) -> None:
    table = mixed_table()[["height", "city"]].rename(columns={"city": "labels"})
    table["weight"] = draw.normal(70, 9, len(table))
    table.to_csv(tmp_path / "a.csv", index=False)
    run = train(tmp_path, "--data", tmp_path / "a.csv", "--condition", "labels")
    assert not run.form.labels_are_given
    model = load(run)
    assert model.score(table).log_p.shape == (300,)
    with pytest.raises(InputError, match="some of them are conditions: give a DataFrame"):
        model.score(np.zeros((3, 3)))
    own = table[["weight", "height"]]
    same = model.score(own.to_numpy()[:, ::-1], y=table["labels"].to_numpy())
    np.testing.assert_array_equal(same.log_p, model.score(table).log_p)


def test_pictures_given_their_labels(tmp_path: Path) -> None:
    run = train(tmp_path, "--data", "digits", "--condition", "labels")
    model = load(run)
    digits = data.load("digits")
    labels = digits.test_labels
    assert labels is not None
    assert torch.equal(model.observe(digits.test, labels, noise_seed=None), run.test)
    names = [str(label) for label in labels[:5].tolist()]
    same = [
        model.score(digits.test[:5], 20, y=y).log_p for y in (labels[:5], labels[:5, None], names)
    ]
    assert (same[0] == same[1]).all() and (same[0] == same[2]).all()
    drawn = model.sample(30, 7)
    assert drawn.shape == (30, 8, 8) and drawn.dtype == np.uint8
    assert model.reconstruct(digits.test[:2], y=labels[:2]).shape == (2, 8, 8)
    for y, said in ((None, "is given label: give them as y"), ([12], "unknown categories 12")):
        with pytest.raises(InputError, match=said):
            model.score(digits.test[:5], y=y)


def test_missing_values_are_imputed_in_the_form_of_the_data(tmp_path: Path) -> None:
    model = load(make("holes", tmp_path))
    table = with_holes(mixed_table(40), 0.3)
    found = model.impute(table, 200, draws=3)
    assert list(found.values.columns) == list(table.columns) and not found.values.isna().any().any()
    for name in ("height", "income", "visits"):
        there = table[name].notna()
        np.testing.assert_array_equal(found.values[name][there], table[name][there].astype(float))
    there = table["city"].notna()
    assert (found.values["city"][there] == table["city"][there]).all()
    assert len(found.draws) == 3 and set(found.draws[0]["city"]) <= {"Rome", "Oslo", "Bern"}
    holes = table["height"].isna().to_numpy()
    assert np.isnan(found.lower[~holes, 3]).all()
    known = holes & ~np.isnan(found.lower[:, 3])
    assert (found.lower[known, 3] < found.values["height"][known]).all()
    assert (found.upper[known, 3] > found.values["height"][known]).all()


def test_runs_without_the_file_or_with_kinds_of_their_own_are_refused(
    digits: tuple[Run, Trained], tmp_path: Path
) -> None:
    run, model = digits
    with pytest.raises(InputError, match="is not the folder of a run"):
        pyro_vae.load(tmp_path)
    text = (model.folder / "config.yaml").read_text()
    (tmp_path / "config.yaml").write_text(text.replace("pyro_vae.priors.Standard", "os.Standard"))
    with pytest.raises(InputError, match=r"names os.StandardNormal, which is not a public class"):
        pyro_vae.load(tmp_path)
    (tmp_path / "config.yaml").write_text(text)
    with pytest.raises(InputError, match="made by an older version: resume it once"):
        pyro_vae.load(tmp_path)

    class Own(type(run.kind)):  # type: ignore[misc]
        pass

    own = Own(run.kind.shape, levels=17)
    dataclasses.replace(run.form, kind=own).save(tmp_path)
    with pytest.raises(InputError, match=r"cannot be used without its data: the kind Own is not"):
        pyro_vae.load(tmp_path)
    run.form.save(tmp_path)
    with pytest.raises(InputError, match=r"there is no .*best.pt: train first"):
        pyro_vae.load(tmp_path)


def test_a_loaded_model_leaves_no_trace_in_the_store_of_pyro(tmp_path: Path) -> None:
    posterior = ["--posterior", "IAF", "--posterior.layers", "1"]
    model = load(train(tmp_path, "--data", "digits", *posterior))
    pyro.clear_param_store()
    pyro.param("mine", torch.ones(1))
    images = data.load("digits").test[:5]
    model.encode(images, draws=2)
    model.reconstruct(images)
    model.score(images, 20)
    assert list(pyro.get_param_store().keys()) == ["mine"]
