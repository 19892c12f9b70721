"""How a table of text is written, found from its first lines."""

import csv
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from pyro_vae.errors import InputError

SNIFFED = 2**16  # bytes of a file
SNIFFED_LINES = 200
SPACES = " "  # one or more
SEPARATORS = (",", ";", "\t", "|", SPACES)
MISSING = ("", "na", "n/a", "nan", "null", "none", "?", "-")
CODE = re.compile(r"0\d+")  # with a leading zero, which a number would lose
DECIMAL_COMMA = re.compile(r"\s*[-+]?\d+,\d+([eE][-+]?\d+)?\s*")
DECIMAL_POINT = re.compile(r"\s*[-+]?\d*\.\d+([eE][-+]?\d+)?\s*")
NO_DATA = re.compile(r"\s*(#.*)?|sep=.", re.DOTALL)  # blank, a comment, or Excel's first line


@dataclass(frozen=True)
class TextFormat:
    """How a table is written.

    Attributes:
        encoding: of the text.
        skipped: the number of lines before the table: blank ones, comments, and Excel's `sep=;`.
        separator: of the fields; a space stands for one or more.
        decimal: the decimal point or comma.
        has_header: whether the first line has the columns' names.
        width: the number of fields in the first line.
    """

    encoding: str
    skipped: int
    separator: str
    decimal: str
    has_header: bool
    width: int

    def rows(self, path: Path) -> Iterator[tuple[int, list[str]]]:
        """Yield the number of each line of a file that is not blank, and its fields."""
        with path.open(encoding=self.encoding, newline="") as file:
            lines = islice(file, self.skipped, None)
            for number, fields in _read_fields(lines, self.separator):
                if fields:
                    yield self.skipped + number, fields

    def has_long_lines(self, path: Path) -> bool:
        """Return whether some line has more fields than the first one."""
        try:
            long = (fields for _, fields in self.rows(path) if len(fields) > self.width)
            # `rows` splits at spaces within quotes, too.
            return any(self.separator != SPACES or '"' not in "".join(f) for f in long)
        except csv.Error:  # a field that does not end
            return False

    def find_codes(self, path: Path) -> list[int]:
        """Return the columns of digits alone, some with leading zeros, such as postal codes."""
        if not self._may_have_codes(path):
            return []
        found, others = set(), set()
        rows = islice(self.rows(path), 1 if self.has_header else 0, None)
        for _, fields in rows:
            for place, field in enumerate(fields):
                if CODE.fullmatch(field.strip()):
                    found.add(place)
                elif not (field.strip().isdecimal() or field.strip().lower() in MISSING[:-2]):
                    others.add(place)
        return sorted(found - others)

    def _may_have_codes(self, path: Path) -> bool:
        """Return whether a zero is before another digit, at the start of what may be a field."""
        if self.encoding == "utf-16":
            return True
        with path.open("rb") as file:
            before = b"\n"
            while part := file.read(2**24):
                if re.search(rb"(?<![\w.,:+-])0\d|[,;|]0\d", before + part):
                    return True
                before = part[-2:]
        return False


def sniff(path: Path) -> TextFormat:
    """Find how a table is written.

    Raises:
        InputError: if there is no such file, or it is empty or no text.
    """
    try:
        with path.open("rb") as file:
            start = file.read(SNIFFED)
            is_whole = not file.read(1)
    except OSError as error:
        what = "there is no file" if isinstance(error, FileNotFoundError) else "cannot read"
        raise InputError(f"{what} {path}", "name") from error
    encoding = _find_encoding(start)
    text = start.decode(encoding, "replace")
    if "\0" in text:
        raise InputError(f"{path.name} is not a text file: save the table as text", "name")
    lines = text.splitlines()
    skipped = next((i for i, line in enumerate(lines) if not NO_DATA.fullmatch(line)), len(lines))
    lines = [line for line in lines[skipped:] if line.strip()]
    lines = lines[:SNIFFED_LINES] if is_whole or len(lines) < 2 else lines[:-1][:SNIFFED_LINES]
    if not lines:
        raise InputError(f"{path.name} is empty: it has no rows", "name")
    separator = _find_separator(lines, path.suffix.lower())
    rows = _fields(lines, separator)
    values = [field for row in rows[1:] for field in row]
    commas = sum(bool(DECIMAL_COMMA.fullmatch(value)) for value in values)
    points = sum(bool(DECIMAL_POINT.fullmatch(value)) for value in values)
    decimal = "," if separator != "," and commas > points else "."
    has_header = _has_header(rows, decimal)
    return TextFormat(encoding, skipped, separator, decimal, has_header, len(rows[0]))


def _find_encoding(start: bytes) -> str:
    if start.startswith((b"\xff\xfe", b"\xfe\xff")):
        return "utf-16"
    try:
        start[: start.rfind(b"\n") + 1 or None].decode("utf-8-sig")
    except UnicodeDecodeError:
        return "cp1252"
    return "utf-8-sig"


def _find_separator(lines: list[str], suffix: str) -> str:
    """Return the separator that gives most lines as many fields as the first line, two at least.

    Where several do, it is the one with the largest share of numbers among the fields: 1,5;2,5 are
    two numbers with semicolons, and two numbers of three fields with commas. Spaces separate only
    if half of the fields are numbers then, because texts have spaces, too.
    """
    best, best_score = ("\t" if suffix == ".tsv" else ","), (0.0, 0.0, 0)
    for separator in SEPARATORS:
        rows = _fields(lines, separator)
        width = len(rows[0])
        alike = sum(len(row) == width for row in rows) / len(rows)
        fields = [field for row in rows for field in row]
        numbers = sum(_is_number(field, ",") or _is_number(field, ".") for field in fields)
        share = round(numbers / max(1, len(fields)), 2)
        if separator == SPACES and (best_score[2] > 1 or share < 0.5):
            continue
        score = (round(alike, 1), share, width)
        if width > 1 and score > best_score:
            best, best_score = separator, score
    return best


def _has_header(rows: list[list[str]], decimal: str) -> bool:
    """Return whether the first row has the columns' names.

    Text is taken for names. In a table of text alone it is none if each of its fields is a value of
    its column in other rows, too.
    """
    first = rows[0]
    numeric = [_is_number(field, decimal) for field in first]
    own = first[1:] if not first[0] else first
    if not any(numeric):
        if any(_is_number(field, decimal) for row in rows[1:] for field in row):
            return True
        others = [{row[j] for row in rows[1:] if j < len(row)} for j in range(len(first))]
        return not all(field in values for field, values in zip(first, others, strict=True))
    if own == [str(j) for j in range(len(own))]:
        return True
    for j, field in enumerate(first):
        if field.strip().lower() in MISSING or numeric[j]:
            continue
        below = [
            row[j] for row in rows[1:] if j < len(row) and row[j].strip().lower() not in MISSING
        ]
        if below and all(_is_number(value, decimal) for value in below):
            return True
    return False


def _fields(lines: list[str], separator: str) -> list[list[str]]:
    return [fields for _, fields in _read_fields((line + "\n" for line in lines), separator)]


def _read_fields(lines: Iterable[str], separator: str) -> Iterator[tuple[int, list[str]]]:
    """Yield the number of the last line of each row, and the row's fields."""
    if separator == SPACES:
        yield from ((number, line.split()) for number, line in enumerate(lines, 1))
        return
    reader = csv.reader(lines, delimiter=separator, skipinitialspace=True)
    yield from ((reader.line_num, fields) for fields in reader)


def _is_number(field: str, decimal: str) -> bool:
    try:
        float(field.replace(decimal, "."))
    except ValueError:
        return False
    return field.strip().lower() not in ("nan", "inf", "infinity")
