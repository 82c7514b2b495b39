"""A report page as the pieces of text that hold a number, by section: what a reader could take for a figure."""

from __future__ import annotations

import re
from collections import Counter
from html.parser import HTMLParser
from typing import Any

# What can stand within a sentence; everything else begins a piece of its own.
_INLINE = {"span", "i", "b", "code", "small"}
_VOID = {"meta", "col", "line", "polyline", "br"}
_DIGIT = re.compile(r"\d")


class Figures(HTMLParser):
    """By section (the id of its element, `top` above them): rows of tables as tuples of their cells, other pieces as they read,
    titles as `title: ...`, and what is drawn by a number (`--v`) as `drawn: 0.123`. Pieces without a digit are left out.
    """

    def __init__(self, html: str) -> None:
        super().__init__()
        self.found: dict[str, Counter[Any]] = {"top": Counter()}
        self.lines: dict[str, list[tuple[float, float]]] = {}
        """Points of the chart's lines by class, in percent."""
        self.ticks: dict[str, list[tuple[float, str]]] = {"x": [], "y": []}
        """Labels of the chart's axes with their places in percent."""
        self._section, self._open = "top", ["page"]
        self._text: list[list[str]] = [[]]
        self._cells: list[str] | None = None
        self._axis = ""
        self._place = 0.0
        self.feed(html[html.index("<body>") :])

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        if tag == "polyline":
            points = [point.split(",") for point in given["points"].split()]
            self.lines[given["class"]] = [(float(x), float(y)) for x, y in points]
        if tag in _VOID:
            return
        if tag not in _INLINE:
            self._end_piece()
        if tag == "section":
            self._section = given["id"]
            self.found[self._section] = Counter()
        if tag == "div" and given.get("class", "").startswith("axis "):
            self._axis = given["class"].removeprefix("axis ")
        if tag == "tr":
            self._cells = []
        if "title" in given and _DIGIT.search(given["title"]):
            self.found[self._section][f"title: {given['title']}"] += 1
        style = given.get("style", "")
        if drawn := re.fullmatch(r"--v:\s*([\d.e-]+)", style):
            self.found[self._section][f"drawn: {float(drawn[1]):.3f}"] += 1
        if self._axis and (place := re.search(r"(?:left|top):([\d.]+)%", style)):
            self._place = float(place[1])
        if tag != "body":
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag in _VOID:
            return
        if self._axis and tag == "span":
            self.ticks[self._axis].append((self._place, "".join(self._text[-1]).strip()))
            self._text[-1] = []
        if tag == "div":
            self._axis = ""
        if tag in ("td", "th") and self._cells is not None:
            self._cells.append(" ".join("".join(self._text[-1]).split()))
            self._text[-1] = []
        elif tag == "tr" and self._cells is not None:
            if any(map(_DIGIT.search, self._cells)):
                self.found[self._section][tuple(self._cells)] += 1
            self._cells = None
        elif tag not in _INLINE:
            self._end_piece()
        if tag not in ("html", "body"):
            assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self._text[-1].append(data)

    def _end_piece(self) -> None:
        text = " ".join("".join(self._text[-1]).split())
        self._text[-1] = []
        if _DIGIT.search(text):
            self.found[self._section][text] += 1
