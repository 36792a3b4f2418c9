"""The report's page as a browser's parser sees it: tables, attributes, text."""

import re
from html.parser import HTMLParser

MINUS = "\u2212"
VOID = {"meta", "br", "hr", "img", "link", "input"}


class Page(HTMLParser):
    """Parses a page at once.

    Attributes:
        tables: by id, the rows of the cells' texts.
        tags: (tag, attributes) of every element.
        ids: every id.
        text: everything shown.
    """

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tables: dict[str, list[list[str]]] = {}
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.ids: list[str] = []
        self.styles = ""
        self.text = ""
        self.open: list[str] = []
        self._rows: list[list[str]] | None = None
        self.feed(html)
        self.close()

    def handle_starttag(self, tag, attributes):
        values = {name: value or "" for name, value in attributes}
        self.tags.append((tag, values))
        if "id" in values:
            self.ids.append(values["id"])
        if tag not in VOID:
            self.open.append(tag)
        if tag == "table":
            self._rows = self.tables.setdefault(values.get("id", f"table {len(self.tables)}"), [])
        if tag == "tr":
            self._rows.append([])
        if tag in ("td", "th"):
            self._rows[-1].append("")

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag, f"unbalanced </{tag}>"

    def handle_data(self, data):
        if self.open and self.open[-1] == "style":
            self.styles += data
            return
        self.text += data
        if "td" in self.open or "th" in self.open:
            self._rows[-1][-1] += data if "ci" not in self._classes() else f" {data}"

    def _classes(self) -> str:
        return self.tags[-1][1].get("class", "")


def numbers(text: str) -> list[float]:
    """All numbers of a text, with the typographic minus read as a minus."""
    return [
        float(found) for found in re.findall(r"-?\d+(?:\.\d+)?", text.replace(MINUS, "-").replace(",", ""))
    ]
