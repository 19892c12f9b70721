"""Pages, parsed: every tag is closed in its order, and what is inside can be asked for."""

from html.parser import HTMLParser

VOID = {"meta", "link", "img", "br", "input", "hr"}


class Page(HTMLParser):
    """A parsed page.

    Attributes:
        tags: the tags with their attributes, in their order.
        rows: the texts of the cells of each row of a table.
        text: all text but that of styles and scripts.
    """

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.rows: list[list[str]] = []
        self.text = ""
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len(dict(attrs)) == len(attrs)
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1] in ("style", "script"):
            return
        self.text += data
        if self._open and self._open[-1] in ("td", "th"):
            self.rows[-1][-1] += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        """Return the attributes of all tags of a name."""
        return [attributes for name, attributes in self.tags if name == tag]

    def row(self, name: str) -> list[str]:
        """Return the first row whose first cell has a text."""
        return next(row for row in self.rows if row[0] == name)


def check(text: str) -> Page:
    """Check what is true of every page: it is well formed, and loads nothing."""
    page = Page(text)
    assert text.startswith("<!DOCTYPE html>")
    for image in page.all("img"):
        assert image["alt"] and str(image["src"]).startswith("data:image/png;base64,")
        assert int(image["width"] or 0) > 50 and int(image["height"] or 0) > 20
    anchors = {each["id"] for _, each in page.tags if "id" in each}
    links = [str(each["href"]) for each in page.all("a")]
    assert {link[1:] for link in links if link.startswith("#")} <= anchors
    assert not [link for link in links if ":" in link or link.startswith("/")]
    assert [each["href"] for each in page.all("link")] == ["data:,"]
    assert not {"iframe", "object", "embed", "video", "form"} & {tag for tag, _ in page.tags}
    assert not [each for _, each in page.tags if any(name.startswith("on") for name in each)]
    assert len(page.all("script")) == 1 and "src" not in page.all("script")[0]
    assert len(page.all("h1")) == 1
    return page
