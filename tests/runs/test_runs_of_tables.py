"""A table from a file to its bounds and figures, and what a run remembers of its data."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pyro_vae import InputError
from pyro_vae.diagnostics import Smoothness
from pyro_vae.runs import config, evaluation, files
from pyro_vae.runs.run import Run
from pyro_vae.runs.run_data import split_names

GIVEN = ["--latent_dim", "2", "--batch_size", "40", "--epochs", "2", "--num_samples", "20"]


def write_table(path: Path, rows: int = 300, seed: int = 0) -> pd.DataFrame:
    draw = np.random.default_rng(seed)
    table = pd.DataFrame(
        {
            "age": draw.integers(18, 90, rows),
            "income": np.exp(draw.normal(10, 0.6, rows)),
            "smoker": draw.choice(["yes", "no"], rows),
            "height": draw.normal(170, 10, rows),
            "group": draw.choice(["x", "y"], rows),
        }
    )
    table.to_csv(path, index=False)
    return table


def build(folder: Path, *arguments: object) -> Run:
    return Run.build(folder, config.parse([*map(str, arguments), *GIVEN]))


def test_a_table_is_trained_and_evaluated_and_drawn(tmp_path: Path) -> None:
    write_table(tmp_path / "a.csv")
    run = build(tmp_path / "run", "--data", tmp_path / "a.csv", "--labels", "group")
    assert run.kind.names == ("age", "income", "smoker", "height")
    said = "The data are counts (1 column), positive (1 column), categories (1 column), real"
    assert said in str(run)
    assert run.namespace.likelihood.class_path == "pyro_vae.likelihoods.Columns"
    run.create()
    files.write_training(run, run.fit())
    result = evaluation.evaluate(run, evaluation.Plan(checks=100, draws=2))
    files.write_evaluation(run, result)
    drawn = {path.stem for path in (run.folder / "figures").iterdir()}
    assert drawn == {"training", "rows", "columns", "pairs", "bounds", "units", "programs"}
    assert result.checks is not None and set(result.checks.by_statistic) == set(run.kind.names)
    mean = result.importance.elbo.mean
    # The columns are independent: age is uniform, income log-normal, height normal.
    entropy = np.log(72) + (10 + np.log(0.6) + 1.419) + np.log(2) + (np.log(10) + 1.419)
    assert abs(mean + entropy) < 1.5  # in their own units
    opened = Run.open(run.folder)
    assert str(opened.kind) == str(run.kind) and opened.options.fingerprint


def test_a_file_that_is_moved_or_sorted_is_the_same_and_others_are_refused(tmp_path: Path) -> None:
    table = write_table(tmp_path / "a.csv")
    run = build(tmp_path / "run", "--data", tmp_path / "a.csv")
    run.create()
    run.fit()
    table.sample(frac=1, random_state=1).to_csv(tmp_path / "b.csv", index=False)
    moved = Run.open(run.folder, data=str(tmp_path / "b.csv"))
    ours, theirs = (np.sort(r.test.numpy(), 0) for r in (run, moved))
    assert np.array_equal(ours, theirs)
    for changed in (table.iloc[1:], pd.concat([table, table.iloc[:1]]), table.assign(age=40)):
        changed.to_csv(tmp_path / "c.csv", index=False)
        with pytest.raises(InputError, match=r"is not what .* was trained on") as caught:
            Run.open(run.folder, data=str(tmp_path / "c.csv"))
        assert caught.value.parameter == "data"
    with pytest.raises(InputError, match=r"there is no file .*nowhere\.csv"):
        Run.open(run.folder, data=str(tmp_path / "nowhere.csv"))
    text = (run.folder / "config.yaml").read_text()
    old = "\n".join(line for line in text.splitlines() if not line.startswith("fingerprint"))
    (run.folder / "config.yaml").write_text(old)
    with pytest.raises(InputError, match="made by an older version"):
        Run.open(run.folder)
    with pytest.raises(InputError, match="did not note what identifies its data"):
        Run.open(run.folder, data="digits")


def test_totals_that_are_known_are_those_of_the_rows(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    totals = draw.choice([5, 50, 500], 300)
    np.save(tmp_path / "a.npy", np.stack([draw.multinomial(n, [0.2, 0.3, 0.5]) for n in totals]))
    run = build(tmp_path / "run", "--data", tmp_path / "a.npy", "--likelihood", "Multinomial")
    assert run.base_measure.name == "counts, given their total"
    run.vae.eval()
    run.folder.mkdir()
    result = evaluation.evaluate(run, evaluation.Plan(checks=50, draws=0))
    smoothness = result.diagnostics["smoothness"]
    assert result.checks is not None and isinstance(smoothness, Smoothness)
    drawn = np.stack([check.model for check in result.checks.by_statistic.values()], 1).sum(1)
    assert set(drawn) == {5, 50, 500}
    assert all(np.isfinite(cost.mean().item()) for cost in smoothness.noise.values())


def test_a_new_run_may_take_the_options_of_another(tmp_path: Path) -> None:
    """With other data, too: only opening and resuming ask for the same ones."""
    write_table(tmp_path / "a.csv")
    write_table(tmp_path / "b.csv", seed=1)
    build(tmp_path / "run", "--data", tmp_path / "a.csv").create()
    same = ["--config", tmp_path / "run/config.yaml"]
    build(tmp_path / "other", *same, "--data", tmp_path / "b.csv").create()
    with pytest.raises(InputError, match="exists already"):
        build(tmp_path / "run", "--data", tmp_path / "a.csv").create()
    resumed = build(tmp_path / "run", *same, "--data", tmp_path / "b.csv")
    with pytest.raises(InputError, match=r"is not what .* was trained on"):
        resumed.resume()


def test_columns_are_given_and_left_out(tmp_path: Path) -> None:
    write_table(tmp_path / "a.csv")
    given = ["--data", tmp_path / "a.csv", "--drop", "group, smoker", "--columns.age", "real"]
    run = build(tmp_path / "run", *given, "--likelihood", "Columns")
    assert str(run.kind) == "real (2 columns), positive (1 column)"
    assert run.kind.names == ("age", "income", "height")
    more = ["--likelihood.columns", "{income: Gamma}"]
    run = build(tmp_path / "run", *given, "--likelihood", "Columns", *more)
    assert [type(part).__name__ for part in run.vae.likelihood.parts] == ["Gaussian", "Gamma"]
    for options, said in (
        (["--drop", "wages"], "has no column wages"),
        (["--columns.smoker", "ordered"], "which order have no, yes\\? Give it"),
        (["--columns.height", "real 3"], "real has nothing after it"),
    ):
        with pytest.raises(InputError, match=said):
            build(tmp_path / "run", "--data", tmp_path / "a.csv", *options)
    with pytest.raises(InputError, match="digits is read as it is") as caught:
        build(tmp_path / "run", "--drop", "wages")
    assert caught.value.parameter == "drop"


def test_names_with_commas_and_dots_are_written_in_quotes(tmp_path: Path) -> None:
    assert split_names(' id, "mass, kg",a.b,c d ,"say ""no""",') == [
        "id",
        "mass, kg",
        "a.b",
        "c d",
        'say "no"',
    ]
    assert split_names("") == [] and split_names("x") == ["x"]
    draw = np.random.default_rng(0)
    names = ["mass, kg", "a.b", "c d", "x"]
    pd.DataFrame(draw.normal(size=(80, 4)), columns=names).to_csv(tmp_path / "a.csv", index=False)
    given = ["--data", tmp_path / "a.csv", "--columns", "{a.b: real, 'c d': real}"]
    run = build(tmp_path / "run", *given, "--drop", 'x, "mass, kg"')
    run.create()
    again = build(tmp_path / "again", "--config", tmp_path / "run/config.yaml")
    assert run.kind.names == ("a.b", "c d") == again.kind.names


def test_options_that_would_do_nothing_are_refused(tmp_path: Path) -> None:
    write_table(tmp_path / "a.csv")
    for options, parameter in (
        (["--image_size", "8"], "image_size"),
        (["--drop", "age", "--columns.age", "real"], "columns"),
    ):
        with pytest.raises(InputError) as caught:
            build(tmp_path / "run", "--data", tmp_path / "a.csv", *options)
        assert caught.value.parameter == parameter


def test_figures_show_rows_of_all_parts_of_a_sorted_file(tmp_path: Path) -> None:
    write_table(tmp_path / "a.csv", rows=400)
    pd.read_csv(tmp_path / "a.csv").sort_values("age").to_csv(tmp_path / "b.csv", index=False)
    run = build(tmp_path / "run", "--data", tmp_path / "b.csv")
    assert run.test[:6, 0].max() < 40 < run.mixed[:6, 0].max()
    assert sorted(run.mixed[:, 0].tolist()) == run.test[:, 0].tolist()
    assert (run.mixed[:20] == run.test[run.evaluated[:20]]).all()
