"""A trained model at work on files: read in chunks, in their order, and written as it goes.

Each function takes the folder of a run, or a model that is loaded. The input is what training
reads: see `data.load`. Columns are matched by their names. What is written, and how, follows from
the suffix of the output: see `RowWriter` and `PictureWriter`.
"""

import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np

from pyro_vae.bounds import Settings
from pyro_vae.data.plain_rows import PlainRows, open_rows
from pyro_vae.data.source import ReadOptions
from pyro_vae.data.understanding.given_kinds import ALL
from pyro_vae.errors import InputError
from pyro_vae.kinds import Incomplete, Pixels
from pyro_vae.kinds.kind import rows_at_once
from pyro_vae.programs.random_streams import stream_seed
from pyro_vae.runs.applying.new_columns import IgnoredColumnsWarning
from pyro_vae.runs.applying.picture_writer import PICTURE, PictureWriter
from pyro_vae.runs.applying.row_writer import RowWriter, Written
from pyro_vae.runs.applying.trained import Trained, load
from pyro_vae.runs.run_data import split_names

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
        progress: whether to show a progress bar for each chunk.

    Returns:
        The number of rows, and notes for a person to read.

    Raises:
        InputError: if the rows do not fit, or a file cannot be read or written.
    """
    count = 0

    def work(model: Trained, x: Any, y: Any, seed: int) -> Any:
        nonlocal count
        scores = model.score(
            x,
            num_samples,
            method,
            y=y,
            seed=seed,
            settings=settings,
            progress=progress,
        ).columns()
        rows = np.arange(count, count + len(scores["log_p"]))
        count += len(rows)
        return {"row": rows, **scores}

    return _apply(run, data, RowWriter(out, overwrite), work)


def encode_file(
    run: Folder | Trained, data: str, out: Folder, *, overwrite: bool = True
) -> Written:
    """Write the codes of all rows: `mean` and `scale` of q(z|x); see `score_file`."""

    def work(model: Trained, x: Any, y: Any, seed: int) -> Any:
        codes = model.encode(x, y=y, seed=seed)
        return {"mean": codes.mean, "scale": codes.scale}

    return _apply(run, data, RowWriter(out, overwrite), work)


def reconstruct_file(
    run: Folder | Trained, data: str, out: Folder, *, overwrite: bool = True
) -> Written:
    """Write the reconstructions of all rows, in the data's own form; see `score_file`.

    Pictures may be written as .png: one picture, with a grid of them.
    """
    model = _loaded(run)

    def work(model: Trained, x: Any, y: Any, seed: int) -> Any:
        return model.reconstruct(x, y=y, seed=seed)

    return _apply(model, data, _writer(model, out, overwrite), work)


def impute_file(
    run: Folder | Trained,
    data: str,
    out: Folder,
    num_samples: int = 1000,
    *,
    overwrite: bool = True,
) -> Written:
    """Write all rows with their missing values imputed, in the data's own form.

    Args:
        run: the folder of a run, or a model.
        data: a file.
        out: the file to write.
        num_samples: see `Trained.impute`.
        overwrite: whether `out` is replaced if it exists.

    Returns:
        The number of rows, and notes for a person to read.

    Raises:
        InputError: if the rows do not fit, or a file cannot be read or written.
    """

    def work(model: Trained, x: Any, y: Any, seed: int) -> Any:
        return model.impute(x, num_samples, y=y, seed=seed).values

    return _apply(run, data, RowWriter(out, overwrite), work)


def sample_file(
    run: Folder | Trained,
    n: int,
    out: Folder,
    y: Any = None,
    temperature: float = 1.0,
    *,
    seed: int = 0,
    overwrite: bool = True,
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

    Returns:
        The number of rows, and notes for a person to read.

    Raises:
        InputError: if an option is out of range, or the file cannot be written.
    """
    model = _loaded(run)
    with _writer(model, out, overwrite) as writer:
        writer.add(model.sample(n, y, temperature, seed=seed))
    return Written(writer.rows)


Work = Callable[[Trained, Any, Any, int], Any]


def _apply(run: Folder | Trained, data: str, writer: RowWriter, work: Work) -> Written:
    """Apply a function to the rows of a file, chunk by chunk, and write what it returns.

    Args:
        run: the folder of a run, or a model.
        data: what is read.
        writer: what writes the file.
        work: a function of the model, of rows, of their conditions, and of the seed of draws of z.
    """
    if Path(data).exists() and Path(data).resolve() == writer.path.resolve():
        raise InputError(f"{writer.path} is the file that is read: write another one", "out")
    model = _loaded(run)
    rows = _open(model, data)
    notes = list(rows.notes)
    with writer, warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", IgnoredColumnsWarning)
        for number, (x, y) in enumerate(_chunks(model, rows, data)):
            seed = stream_seed(model.options.seed, number) if number else model.options.seed
            writer.add(work(model, x, y, seed))
    for each in caught:
        if issubclass(each.category, IgnoredColumnsWarning):
            notes.append(str(each.message))
        else:
            warnings.warn_explicit(each.message, each.category, each.filename, each.lineno)
    return Written(writer.rows, list(dict.fromkeys(notes)))


def _loaded(run: Folder | Trained) -> Trained:
    return run if isinstance(run, Trained) else load(run)


def _writer(model: Trained, out: Folder, overwrite: bool) -> RowWriter:
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


def _chunks(model: Trained, rows: PlainRows, data: str) -> Iterator[tuple[Any, Any]]:
    """Yield rows with their conditions, where these are labels; columns are in the rows."""
    if len(rows) == 0:
        raise InputError(f"{data} has no rows: give one or more", "data")
    needs_labels = model.form.labels_are_given
    if needs_labels and rows.labels is None:
        raise InputError(f"{data} has no labels, and the model is given labels: add them", "data")
    for x, labels in rows.chunks(rows_at_once(model.kind.shape)):
        yield x, labels if needs_labels else None
