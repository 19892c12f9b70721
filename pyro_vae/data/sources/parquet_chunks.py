"""A Parquet file or folder, read in chunks: any number of rows in little memory."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pyro_vae.data.sources.equal_chunks import equal_chunks, rows_of
from pyro_vae.data.sources.table_files import named_parquet_errors


class ParquetChunks:
    """The rows of a Parquet file, or of a folder of them.

    Args:
        path: the path of the file or the folder.

    Attributes:
        names: the names of the columns.
        num_rows: the number of rows.
        notes: sentences about what is not read: none.

    Raises:
        InputError: if there is no such file, or it cannot be read.
    """

    notes: tuple[str, ...] = ()

    def __init__(self, path: Path) -> None:
        self.path = path
        with named_parquet_errors(path):
            from pyarrow import dataset

            if not path.exists():
                raise FileNotFoundError(path)
            hive = dataset.HivePartitioning.discover(infer_dictionary=True)
            self._dataset = dataset.dataset(
                str(path), format="parquet", partitioning=hive if path.is_dir() else None
            )
            self.names = [str(name) for name in self._dataset.schema.names]
            self.num_rows: int = self._dataset.count_rows()

    def frames(self, size: int) -> Iterator[Any]:
        """Yield DataFrames of so many rows, and a last one of fewer."""
        import pyarrow as pa

        tables = (pa.Table.from_batches([batch]) for batch in self._batches())
        for table in equal_chunks(
            tables,
            size,
            pa.concat_tables,
            lambda rows, start, stop: rows.slice(start, stop - start),
        ):
            yield self._frame(table)

    def _batches(self) -> Iterator[Any]:
        with named_parquet_errors(self.path):
            batches = self._dataset.to_batches(
                batch_size=rows_of(len(self.names)), batch_readahead=1, fragment_readahead=1
            )
        while True:
            with named_parquet_errors(self.path):
                try:
                    batch = next(batches)
                except StopIteration:
                    return
            yield batch

    def _frame(self, table: Any) -> Any:
        with named_parquet_errors(self.path):
            return table.to_pandas()
