"""What pages consist of: tables and figures; and a page put together."""

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from typing import Any

from pyro_vae.runs.reporting.run_files import Picture


@dataclass(frozen=True)
class Cell:
    """A cell of a table.

    Attributes:
        text: what it shows.
        key: the number by which the column is sorted, if that is not the text.
    """

    text: str
    key: float | None = None


@dataclass(frozen=True)
class Table:
    """A table. Its first column names the rows, and is aligned on the left.

    Attributes:
        caption: what the table shows.
        head: the names of the columns.
        rows: the cells of each row. Plain texts are cells without a key.
        note: a sentence below the table.
        lead: how to read it, in sentences above the table.
        words: the columns, by their places, that hold words: aligned on the left.
    """

    caption: str
    head: Sequence[str]
    rows: Sequence[Sequence[Cell | str]]
    note: str = ""
    words: Sequence[int] = (0,)
    lead: str = ""

    @property
    def cells(self) -> list[list[Cell]]:
        """The rows, with texts as cells."""
        return [[Cell(c) if isinstance(c, str) else c for c in row] for row in self.rows]


@dataclass(frozen=True)
class ShownFigure:
    """A figure on a page.

    Attributes:
        picture: the figure.
        title: a title of a few words.
        caption: how to read it.
        alt: what it shows, for those who do not see it.
        is_chart: whether it consists of lines on white; such figures are inverted on dark screens.
    """

    picture: Picture
    title: str
    caption: str
    alt: str
    is_chart: bool = True

    @property
    def size(self) -> tuple[int, int]:
        """Its width and height on the page, in CSS pixels: screens show two pixels for three."""
        return self.picture.width * 2 // 3, self.picture.height * 2 // 3


@dataclass(frozen=True)
class Section:
    """A section of a page.

    Attributes:
        anchor: its name in links to it.
        title: its title.
        text: paragraphs.
        parts: tables and figures, in their order.
        hidden: tables that are shown when the reader opens them.
    """

    anchor: str
    title: str
    text: Sequence[str] = ()
    parts: Sequence[Table | ShownFigure] = ()
    hidden: Sequence[Table] = field(default=())

    @property
    def is_empty(self) -> bool:
        """Whether it has nothing to show."""
        return not (self.text or self.parts or self.hidden)


def render(template: str, **content: Any) -> str:
    """Put a page together.

    The page may run its own script and no other, and load nothing: its Content-Security-Policy has
    browsers refuse the rest.

    Args:
        template: the name of a file in `templates/`.
        content: what the template shows. All texts are escaped.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        loader=PackageLoader("pyro_vae.runs.reporting"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.tests["table"] = lambda part: isinstance(part, Table)
    folder = files("pyro_vae.runs.reporting") / "templates"
    style, script = ((folder / name).read_text() for name in ("page.css", "tables.js"))
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    page: str = environment.get_template(template).render(
        style=Markup(style), script=Markup(script), script_digest=digest, **content
    )
    return page
