"""Groups of runs on the command line: found by patterns, read, compared, printed, drawn."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pages
import pytest

from pyro_vae import bounds
from pyro_vae.runs import commands
from pyro_vae.runs.reporting import rounding
from pyro_vae.runs.run_groups import compare_run_groups, find_groups

NUM_EXAMPLES = 40


def write_run(folder: str, mean: float, **changes: Any) -> np.ndarray:
    """Write the `bounds.json` of a run, and return its bound for each example."""
    noise = np.random.default_rng(sum(folder.encode())).normal(size=NUM_EXAMPLES)
    values = mean + 10 * np.linspace(-1, 1, NUM_EXAMPLES) + noise
    bound = {"values": values.tolist(), "mc_variance": [0.01] * NUM_EXAMPLES}
    content = {
        "base_measure": "binary pixels",
        "dims": 64,
        "conditions": {"iwae": {"num_samples": changes.pop("num_samples", 20)}},
        "examples": {"sha256": changes.pop("sha256", "0"), "iwae": bound},
        **changes,
    }
    Path(folder).mkdir(parents=True)
    Path(folder, "bounds.json").write_text(json.dumps(content))
    return values


@pytest.fixture(autouse=True)
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, list[np.ndarray]]:
    """Three runs of one prior and two of another in the current folder."""
    monkeypatch.chdir(tmp_path)
    return {
        "normal": [write_run(f"runs/normal-{seed}", -90 + 0.3 * seed) for seed in range(3)],
        "vamp": [write_run(f"runs/vamp-{seed}", -85 + 0.3 * seed) for seed in range(2)],
    }


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """Return the one line with which a comparison is refused."""
    with pytest.raises(SystemExit) as stop:
        commands.main(["compare", *arguments])
    _, err = capsys.readouterr()
    assert stop.value.code == 2 and err.startswith("error: ") and err.count("\n") == 1
    return err


def test_groups_are_compared(
    runs: dict[str, list[np.ndarray]], capsys: pytest.CaptureFixture[str]
) -> None:
    groups = ["--group", "runs/normal-*", "--group=vamp=runs/vamp-?"]
    commands.main(["compare", *groups, "--figure", "forest.png"])
    out, _ = capsys.readouterr()
    assert out.startswith("IWAE_20 of 40 test examples (binary pixels)")
    expected = np.mean(runs["vamp"]) - np.mean(runs["normal"])
    *_, row, _, verdict = out.splitlines()
    assert f"vamp {expected:+20.3f}".split() == row.split()[:2] and row.endswith("higher")
    assert verdict.startswith("vamp is better than normal, by ")
    assert Path("forest.png").stat().st_size > 0
    [found] = compare_run_groups(["runs/normal-*", "runs/vamp-*"]).by_bound.values()
    assert found.run_means["normal"] == pytest.approx([run.mean() for run in runs["normal"]])
    assert found.differences["vamp"].mean == pytest.approx(expected)
    assert found.differences["vamp"].mc_se == pytest.approx((0.01 / 40 * (1 / 2 + 1 / 3)) ** 0.5)
    assert "forest.txt cannot be drawn" in refused(capsys, *groups, "--figure", "forest.txt")


def test_runs_of_the_same_seeds_are_paired() -> None:
    """The seeds are those in `config.yaml`, not those in the names of the folders."""
    for seed in range(3):
        write_run(f"runs/flow-{seed}", -86 + 0.3 * seed)
    for kind, seeds in (("normal", (7, 8, 9)), ("flow", (9, 7, 8)), ("vamp", (7, 8))):
        for place, seed in enumerate(seeds):
            Path(f"runs/{kind}-{place}/config.yaml").write_text(f"data_seed: 3\nseed: {seed}\n")
    groups = ["runs/normal-*", "runs/flow-*", "runs/vamp-*"]
    [found] = compare_run_groups(groups).by_bound.values()
    assert found.paired == ["flow"]
    normal, flow = (np.array(found.run_means[name]) for name in ("normal", "flow"))
    spread = (flow[[1, 2, 0]] - normal).std(ddof=1) / 3**0.5
    assert found.differences["flow"].run_se == pytest.approx(spread)
    for text in ("seed: [1]", "data: digits"):  # there is no seed in it
        Path("runs/flow-0/config.yaml").write_text(text)
        [found] = compare_run_groups(groups).by_bound.values()
        assert found.paired == []


def test_the_page(runs: dict[str, list[np.ndarray]]) -> None:
    write_run("runs/one<b>", -84)
    for folder in Path("runs").iterdir():
        (folder / "config.yaml").write_text("# torch 2.9.0\ndata: digits\n")
    (Path("runs/vamp-1") / "report.html").touch()
    groups = ["runs/normal-*", "runs/vamp-*", "runs/one*"]
    options = [part for each in groups for part in ("--group", each)]
    commands.main(["compare", *options, "--report", "groups.html"])
    text = Path("groups.html").read_text()
    page = pages.check(text)
    found = compare_run_groups(groups).by_bound["IWAE_20"]
    vamp, single = found.differences["vamp"], found.differences["one"]
    reach = rounding.interval(vamp.ci95, vamp.se)
    errors = [rounding.error(each) for each in (vamp.run_se, vamp.example_se, vamp.se)]
    [means, differences] = [row for row in page.rows if row[0] == "vamp"]
    assert means[:2] == ["vamp", "2"]
    assert differences == ["vamp", rounding.value(vamp.mean, vamp.se), *errors, reach, "higher"]
    unknown = ["unknown", rounding.error(single.example_se), *["unknown"] * 3]
    assert [row for row in page.rows if row[0] == "one"][1][2:] == unknown
    assert "one run only in one" in page.text and "<b>" not in text
    assert (
        "vamp is better than normal" in page.text
        and "Unknown whether it differs from normal" in page.text
    )
    assert len([row for row in page.rows if row[0].startswith("runs/")]) == 6
    [link] = [str(each["href"]) for each in page.all("a") if "report.html" in str(each["href"])]
    assert link == "runs/vamp-1/report.html" and len(page.all("img")) == 1
    repeat = "compare --group 'runs/normal-*' --group 'runs/vamp-*' --group 'runs/one*'"
    assert repeat in page.text


def test_all_bounds_that_all_runs_have_are_compared() -> None:
    for name, number in (("a-1", 1.0), ("a-2", 2.0), ("b-1", 4.0), ("b-2", 6.0)):
        write_run(f"both/{name}", -90)
        path = Path("both", name, "bounds.json")
        content = json.loads(path.read_text())
        content["conditions"]["ais"] = {"temperatures": 5}
        content["examples"]["ais"] = {"values": [number] * 30, "mc_variance": [None] * 30}
        path.write_text(json.dumps(content))
    found = compare_run_groups(["both/a-*", "both/b-*"])
    assert list(found.by_bound) == ["AIS", "IWAE_20"]
    assert found.by_bound["AIS"].differences["b"].mean == 3.5
    assert str(found).startswith("AIS of 30 test") and "IWAE_20 of 40 test" in str(found)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("runs/vamp-*", "vamp"),
        ("runs/vamp-[01]", "vamp"),
        ("runs/*-0", "0"),
        ("runs/vamp-1", "vamp-1"),
        ("runs/v*", "v"),
        ("run*/*-*", "run"),
        ("*/*", "*/*"),
        ("a prior=runs/vamp-*", "a prior"),
        ("./runs/vamp-*", "vamp"),
    ],
)
def test_names_of_groups(text: str, name: str) -> None:
    assert list(find_groups([text])) == [name]


def test_runs_are_sorted_folders() -> None:
    Path("runs/vamp-notes.txt").touch()
    write_run("runs/vamp=3", -84)
    folders = ["runs/vamp-0", "runs/vamp-1", "runs/vamp=3"]
    assert find_groups(["runs/vamp[-=]*"]) == {"vamp": folders}


def test_what_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    def group(*patterns: str) -> str:
        return refused(capsys, *(f"--group={pattern}" for pattern in patterns))

    normal = "runs/normal-*"
    assert "two groups or more (option --group)" in group(normal)
    assert "no folder matches 'runs/flow-*' (option --group)" in group(normal, "runs/flow-*")
    assert "runs/vamp-0 is in two groups, vamp and one" in group("runs/vamp-*", "one=runs/vamp-0")
    assert "two groups are named vamp" in group("runs/vamp-*", "vamp=runs/normal-*")
    alone = refused(capsys, "--group", "runs/normal-0", "runs/normal-1", "--group", "runs/vamp-0")
    assert "runs/normal-1 is in no group" in alone and "quotes" in alone

    Path("runs/empty").mkdir()
    assert "there is no runs/empty/bounds.json" in group(normal, "runs/empty")
    for name, changes, message in (
        ("other", {"sha256": "1"}, "evaluated on different test examples"),
        ("more", {"num_samples": 50}, "IWAE depends on num_samples, which differs (20 and 50)"),
        ("levels", {"base_measure": "256 levels"}, "different base measures"),
    ):
        write_run(f"runs/{name}-0", -85, **changes)
        assert message in group(normal, f"runs/{name}-*")
    content = Path("runs/vamp-0/bounds.json").read_text()
    Path("runs/vamp-1/bounds.json").write_text(content)
    message = "two runs of the group vamp have the same values: train each with its own seed"
    assert message in group(normal, "runs/vamp-*")


def test_one_run_has_no_error_over_runs(capsys: pytest.CaptureFixture[str]) -> None:
    commands.main(["compare", "--group", "runs/normal-*", "--group", "runs/vamp-0"])
    out, _ = capsys.readouterr()
    assert "The error over runs is unknown: one run only in vamp-0." in out
    found = compare_run_groups(["runs/normal-0", "runs/vamp-0"])
    assert isinstance(found.by_bound["IWAE_20"], bounds.GroupComparison)
    found.draw(Path("forest.png"))
