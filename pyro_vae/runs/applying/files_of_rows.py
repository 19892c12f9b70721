"""A trained model at work on files: read in chunks, in their order, and written as it goes.

Each function takes the folder of a run, or a model that is loaded. The input is what training
reads: see `data.load`. Columns are matched by their names. What is written, and how, follows from
the suffix of the output: see `RowWriter` and `PictureWriter`. A call that is interrupted goes on
when it is repeated; a call with other options discards what was finished, unless `overwrite` is
false.
"""

import contextlib
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from tqdm import tqdm

from pyro_vae.bounds import Settings
from pyro_vae.bounds.batches import BAR
from pyro_vae.data.plain_rows import PlainRows, open_rows
from pyro_vae.data.source import ReadOptions
from pyro_vae.data.understanding.given_kinds import ALL
from pyro_vae.errors import InputError
from pyro_vae.kinds import Incomplete, Pixels
from pyro_vae.kinds.kind import rows_at_once
from pyro_vae.programs import ranks
from pyro_vae.programs.looking_once import looked_at_once
from pyro_vae.programs.random_streams import stream_seed
from pyro_vae.runs.applying.answers import Imputed
from pyro_vae.runs.applying.new_columns import IgnoredColumnsWarning
from pyro_vae.runs.applying.output_file import OutputFile, Written
from pyro_vae.runs.applying.own_form import columns_of_numbers, from_stored
from pyro_vae.runs.applying.picture_writer import PICTURE, PictureWriter
from pyro_vae.runs.applying.requests import request
from pyro_vae.runs.applying.row_writer import RowWriter
from pyro_vae.runs.applying.sampling import conditions
from pyro_vae.runs.applying.seeded_batches import BATCH
from pyro_vae.runs.applying.trained import Trained, load
from pyro_vae.runs.run_data import split_names

SLOW = 1000  # draws of a row, from which on the results within a chunk are kept, too

Folder = str | Path


def score_file(
    run: Folder | Trained,
    data: str,
    out: Folder,
    num_samples: int = 100,
    method: Literal["importance", "ais"] = "importance",
    *,
    settings: Settings | None = None,
    overwrite: bool = True,
    progress: bool = False,
) -> Written:
    """Write bounds on log p(x) of each row: `row`, `log_p`, `mc_se`, `khat`, `percentile`.

    `row` counts the rows of the file from 0. Annealing adds `upper` and `upper_mc_se`; see
    `RowScores`.

    Args:
        run: the folder of a run, or a model.
        data: a file, a folder of pictures, or the name of a data set.
        out: the file to write: .csv, .parquet, .npz or .npy.
        num_samples: see `Trained.score`.
        method: see `Trained.score`.
        settings: see `Trained.score`.
        overwrite: whether `out` is replaced if it exists.
        progress: whether to show a progress bar.

    Returns:
        The number of rows, and notes for a person to read.

    Raises:
        InputError: if the rows do not fit, or a file cannot be read or written.
    """
    writer = RowWriter(out, overwrite)
    is_slow = method == "ais" or num_samples >= SLOW

    def work(model: Trained, x: Any, y: Any, seed: int) -> Any:
        scores = model.score(
            x,
            num_samples,
            method,
            y=y,
            seed=seed,
            settings=settings,
            keep=writer.scratch if is_slow else None,
            progress=progress and is_slow,
        ).columns()
        rows = np.arange(writer.rows, writer.rows + len(scores["log_p"]))
        return {"row": rows, **scores}

    options = {"num_samples": num_samples, "method": method, "settings": settings}
    return _apply(run, "score", data, writer, work, progress, options)


def encode_file(
    run: Folder | Trained,
    data: str,
    out: Folder,
    draws: int = 0,
    *,
    overwrite: bool = True,
    progress: bool = False,
) -> Written:
    """Write the codes of all rows: `mean` and `scale` of q(z|x) [N, D], and `draw` [N, draws, D].

    Args:
        run: the folder of a run, or a model.
        data: see `score_file`.
        out: see `score_file`.
        draws: the number of draws from q(z|x).
        overwrite: see `score_file`.
        progress: see `score_file`.

    Returns:
        The number of rows, and notes for a person to read.

    Raises:
        InputError: if the rows do not fit, or a file cannot be read or written.
    """

    def work(model: Trained, x: Any, y: Any, seed: int) -> Any:
        codes = model.encode(x, draws, y=y, seed=seed)
        drawn = {"draw": codes.draws.swapaxes(0, 1)} if draws else {}
        return {"mean": codes.mean, "scale": codes.scale, **drawn}

    writer = RowWriter(out, overwrite)
    return _apply(run, "encode", data, writer, work, progress, {"draws": draws})


def reconstruct_file(
    run: Folder | Trained,
    data: str,
    out: Folder,
    *,
    overwrite: bool = True,
    progress: bool = False,
) -> Written:
    """Write the reconstructions of all rows, in the data's own form; see `score_file`.

    Pictures may be written as .png: one picture, with a grid of them.
    """
    model = _loaded(run)

    def work(model: Trained, x: Any, y: Any, seed: int) -> Any:
        return model.reconstruct(x, y=y, seed=seed)

    writer = _writer(model, out, overwrite)
    return _apply(model, "reconstruct", data, writer, work, progress, {})


def impute_file(
    run: Folder | Trained,
    data: str,
    out: Folder,
    num_samples: int = 1000,
    *,
    draws: int = 0,
    intervals: bool = False,
    overwrite: bool = True,
    progress: bool = False,
) -> Written:
    """Write all rows with their missing values imputed, in the data's own form.

    With intervals, a table has the columns `lower_NAME` and `upper_NAME` for each column of
    numbers, the ends of 90 % intervals of values that are missing; they are empty where a value is
    observed, and where the draws of a row are not reliable. With draws it has `draw0_NAME`,
    `draw1_NAME`, .. for each column: multiple imputations, where observed values are repeated.
    Arrays are called `x`, `lower` and `upper`, shape [N, ..], and `draw`, shape [N, draws, ..].

    Args:
        run: the folder of a run, or a model.
        data: a file.
        out: the file to write.
        num_samples: see `Trained.impute`.
        draws: the number of multiple imputations.
        intervals: whether intervals are written.
        overwrite: whether `out` is replaced if it exists.
        progress: whether to show a progress bar.

    Returns:
        The number of rows, and notes for a person to read.

    Raises:
        InputError: if the rows do not fit, or a file cannot be read or written.
    """
    writer = RowWriter(out, overwrite)
    is_slow = num_samples >= SLOW

    def work(model: Trained, x: Any, y: Any, seed: int) -> Any:
        found = model.impute(
            x,
            num_samples,
            draws=draws,
            y=y,
            seed=seed,
            keep=writer.scratch if is_slow else None,
            progress=progress and is_slow,
        )
        return _columns(model, found, intervals) if draws or intervals else found.values

    options = {"num_samples": num_samples, "draws": draws, "intervals": intervals}
    return _apply(run, "impute", data, writer, work, progress, options)


def _columns(model: Trained, found: Imputed, intervals: bool) -> dict[str, np.ndarray]:
    """Return imputed rows as arrays by their names; see `impute_file`."""
    form, is_table = model.form, hasattr(found.values, "columns")
    ends = {}
    if intervals:
        for side in ("lower", "upper"):
            ends[side] = from_stored(form, torch.from_numpy(getattr(found, side)), are_means=True)
    if not is_table:
        arrays = {"x": found.values}
        arrays |= {side: np.asarray(values, np.float64) for side, values in ends.items()}
        return arrays | ({"draw": np.stack(found.draws, 1)} if found.draws else {})
    numbers = columns_of_numbers(form)
    tables = {"": found.values}
    tables |= {f"{side}_": values[numbers] for side, values in ends.items()}
    tables |= {f"draw{number}_": values for number, values in enumerate(found.draws)}
    columns: dict[str, np.ndarray] = {}
    for prefix, table in tables.items():
        for name in table.columns:
            if f"{prefix}{name}" in columns:
                raise InputError(
                    f"the data have a column {prefix}{name}, and so have the results: leave "
                    "intervals and draws out",
                    "draws" if prefix.startswith("draw") else "intervals",
                )
            columns[f"{prefix}{name}"] = table[name].to_numpy()
    return columns


def sample_file(
    run: Folder | Trained,
    n: int,
    out: Folder,
    y: Any = None,
    temperature: float = 1.0,
    *,
    seed: int = 0,
    overwrite: bool = True,
    progress: bool = False,
) -> Written:
    """Write examples that are drawn from the model, in the data's own form.

    Pictures may be written as .png: one picture, with a grid of them.

    Args:
        run: the folder of a run, or a model.
        n: the number of examples.
        out: the file to write.
        y: see `Trained.sample`.
        temperature: see `Trained.sample`.
        seed: see `Trained.sample`.
        overwrite: whether `out` is replaced if it exists.
        progress: whether to show a progress bar.

    Returns:
        The number of rows, and notes for a person to read.

    Raises:
        InputError: if an option is out of range, or the file cannot be written.
    """
    model = _loaded(run)
    size = max(BATCH, rows_at_once(model.kind.shape) // BATCH * BATCH)
    given = conditions(model.form, n, y, temperature, seed, size)
    given = given[:1] if given.stride(0) == 0 or given.numel() == 0 else given  # one for all
    asked = request(
        model, "sample", None, n=int(n), y=given, temperature=temperature, seed=seed, size=size
    )
    with _writer(model, out, overwrite) as writer:
        writer.begin(asked)
        before = writer.rows
        with _bar(n, before, progress) as bar:
            for part in model.samples(n, y, temperature, seed=seed, size=size, first=writer.chunks):
                writer.add(part)
                bar.update(len(part))
    return Written(writer.rows, writer.notes, before)


Work = Callable[[Trained, Any, Any, int], Any]


def _apply(
    run: Folder | Trained,
    verb: str,
    data: str,
    writer: OutputFile,
    work: Work,
    progress: bool,
    options: dict[str, Any],
) -> Written:
    """Apply a function to the rows of a file, chunk by chunk, and write what it returns.

    In `ranks.together()` all processes have the results, and the first one writes them.

    Args:
        run: the folder of a run, or a model.
        verb: what is done.
        data: what is read.
        writer: what writes the file.
        work: a function of the model, of rows, of their conditions, and of the seed of draws of z.
        progress: whether to show a progress bar.
        options: the options of the verb.
    """
    if Path(data).exists() and Path(data).resolve() == writer.path.resolve():
        raise InputError(f"{writer.path} is the file that is read: write another one", "out")
    model = _loaded(run)
    rows = _open(model, data)
    size = rows_at_once(model.kind.shape)
    asked = request(model, verb, data, **options, seed=model.options.seed, rows_of_chunk=size)
    writes = ranks.is_first() or not ranks.shares_work()
    with (
        looked_at_once(),
        writer if writes else contextlib.nullcontext(),
        warnings.catch_warnings(record=True) as caught,
    ):
        warnings.simplefilter("always", IgnoredColumnsWarning)
        if writes:
            writer.begin(asked)
        if ranks.shares_work():
            writer.rows, writer.chunks = ranks.from_first((writer.rows, writer.chunks))
        before = writer.rows
        with _bar(len(rows), before, progress and writes) as bar:
            for x, y in _chunks(model, rows, data, size, writer.chunks):
                number, there = writer.chunks, writer.rows
                seed = stream_seed(model.options.seed, number) if number else model.options.seed
                results = work(model, x, y, seed)
                if writes:
                    writer.add(results)
                else:
                    writer.rows, writer.chunks = there + len(x), number + 1
                bar.update(writer.rows - there)
    notes = [*rows.notes, *writer.notes]
    for each in caught:
        if issubclass(each.category, IgnoredColumnsWarning):
            notes.append(str(each.message))
        else:
            warnings.warn_explicit(each.message, each.category, each.filename, each.lineno)
    return Written(writer.rows, list(dict.fromkeys(notes)), before)


def _bar(total: int, before: int, progress: bool) -> Any:
    hidden = not progress
    return tqdm(total=total, initial=before, unit="row", bar_format=BAR, disable=hidden)


def _loaded(run: Folder | Trained) -> Trained:
    return run if isinstance(run, Trained) else load(run)


def _writer(model: Trained, out: Folder, overwrite: bool) -> OutputFile:
    """Return what writes examples, as pictures or as numbers."""
    if Path(out).suffix.lower() == PICTURE:
        return PictureWriter(out, model.form.of_x, overwrite)
    return RowWriter(out, overwrite)


def _open(model: Trained, data: str) -> PlainRows:
    options, kind = model.options, model.form.of_x
    whole = kind.whole if isinstance(kind, Incomplete) else kind
    largest = whole.largest if isinstance(whole, Pixels) else 255
    columns = (*model.form.columns, *model.form.conditions)
    read = ReadOptions(
        {spec.name or ALL: spec.kind for spec in columns},
        tuple(split_names(options.drop or "")),
        options.labels,
        options.image_size,
    )
    return open_rows(data, options.data_root, read, (tuple(kind.shape), largest))


def _chunks(
    model: Trained, rows: PlainRows, data: str, size: int, first: int
) -> Iterator[tuple[Any, Any]]:
    """Yield rows with their conditions, where these are labels; columns are in the rows."""
    if len(rows) == 0:
        raise InputError(f"{data} has no rows: give one or more", "data")
    needs_labels = model.form.labels_are_given
    if needs_labels and rows.labels is None:
        raise InputError(f"{data} has no labels, and the model is given labels: add them", "data")
    for x, labels in rows.chunks(size, first):
        yield x, labels if needs_labels else None
