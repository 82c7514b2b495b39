"""A schema's `pattern`, which Python's `re` searches for, as a regular expression of the whole values that it is found in.

The engine of constrained decoding knows no anchors and no word boundaries, has other classes of characters and reads escaped
text: so the pattern is parsed, and each character of it becomes the set of its written forms. No torch.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

# What `re.compile` parses with. It has no public name any more; a Python without it fails the first test of this module.
from re import _constants as kinds  # type: ignore[attr-defined]
from re import _parser as parser  # type: ignore[attr-defined]
from typing import Any

from medkd.student.characters import EVERY, Ranges, Spelling, common, matching, others, union

Nodes = Sequence[tuple[Any, Any]]

_KEPT_FLAGS = re.IGNORECASE | re.ASCII
_STARTS = (kinds.AT_BEGINNING, kinds.AT_BEGINNING_STRING)
# Values have no line ends, so the end is the end.
_ENDS = (kinds.AT_END, kinds.AT_END_STRING)
_CATEGORIES = {
    kinds.CATEGORY_DIGIT: r"\d",
    kinds.CATEGORY_NOT_DIGIT: r"\D",
    kinds.CATEGORY_SPACE: r"\s",
    kinds.CATEGORY_NOT_SPACE: r"\S",
    kinds.CATEGORY_WORD: r"\w",
    kinds.CATEGORY_NOT_WORD: r"\W",
}
_ONE_CHARACTER = (kinds.LITERAL, kinds.NOT_LITERAL, kinds.ANY, kinds.IN)
_REPEATS = (kinds.MAX_REPEAT, kinds.MIN_REPEAT)


class NotRegularError(Exception):
    """The pattern has a part that is not written here: a look-around, a reference back, an anchor in the middle."""


def values_with(pattern: str, spelling: Spelling) -> str:
    """A regular expression (Rust's syntax) of the written values in which the pattern is found; NotRegularError for some."""
    tree = parser.parse(pattern)
    return f"(?:{_Pattern(spelling, tree.state.flags & _KEPT_FLAGS).found(list(tree))})"


class _Pattern:
    def __init__(self, spelling: Spelling, flags: int) -> None:
        self._spelling, self._flags = spelling, flags
        self._any = self._written(EVERY)
        self._word = matching(r"\w", flags & re.ASCII)

    def found(self, nodes: Nodes) -> str:
        """Values that hold the nodes somewhere; where they hold an anchor, alternatives are taken one by one."""
        for place, (kind, value) in enumerate(nodes):
            around = nodes[:place], nodes[place + 1 :]
            if kind is kinds.SUBPATTERN and _anchored(value[3]):
                return self.found([*around[0], *_plain_group(value), *around[1]])
            if kind is kinds.BRANCH and _anchored([(kind, value)]):
                return "|".join(self.found([*around[0], *alternative, *around[1]]) for alternative in value[1])
        anchors = [value if kind is kinds.AT else None for kind, value in nodes]
        first, last = (anchors[0], anchors[-1]) if nodes else (None, None)
        start = first in (*_STARTS, kinds.AT_BOUNDARY)
        end = last in (*_ENDS, kinds.AT_BOUNDARY) and len(nodes) > start
        inner = nodes[start : len(nodes) - end]
        before = "" if first in _STARTS else f"{self._any}*"
        after = "" if end and last in _ENDS else f"{self._any}*"
        if start and first is kinds.AT_BOUNDARY:
            outer, needed = self._outside(inner, backwards=False)
            before = f"(?:{before}{outer}){'' if needed else '?'}"
        if end and last is kinds.AT_BOUNDARY:
            outer, needed = self._outside(inner, backwards=True)
            after = f"(?:{outer}{after}){'' if needed else '?'}"
        return before + self._said(inner) + after

    def _outside(self, inner: Nodes, *, backwards: bool) -> tuple[str, bool]:
        """The character on the other side of a word boundary, and whether there has to be one: known where all that may stand on
        this side are word characters, or none of them is."""
        inside, may_be_empty = self._edge(inner, backwards)
        in_word, beside = common(inside, self._word), common(inside, others(self._word))
        if may_be_empty or (in_word and beside):
            raise NotRegularError
        return self._written(others(self._word) if in_word else self._word), not in_word

    def _edge(self, nodes: Nodes, backwards: bool) -> tuple[Ranges, bool]:
        """The characters that may stand first, or last, and whether there may be none."""
        found: Ranges = ()
        for node in reversed(nodes) if backwards else nodes:
            ranges, may_be_empty = self._edge_of(*node, backwards)
            found = union(found, ranges)
            if not may_be_empty:
                return found, False
        return found, True

    def _edge_of(self, kind: Any, value: Any, backwards: bool) -> tuple[Ranges, bool]:
        if kind in _ONE_CHARACTER:
            return self._set(kind, value), False
        if kind is kinds.SUBPATTERN:
            return self._edge(list(_plain_group(value)), backwards)
        if kind in _REPEATS:
            ranges, may_be_empty = self._edge(list(value[2]), backwards)
            return ranges, may_be_empty or not value[0]
        if kind is kinds.BRANCH:
            edges = [self._edge(list(alternative), backwards) for alternative in value[1]]
            found: Ranges = ()
            for ranges, _ in edges:
                found = union(found, ranges)
            return found, any(may_be_empty for _, may_be_empty in edges)
        raise NotRegularError

    def _said(self, nodes: Nodes) -> str:
        """The nodes as they are written, nothing around them."""
        return "".join(self._one(kind, value) for kind, value in nodes)

    def _one(self, kind: Any, value: Any) -> str:
        if kind in _ONE_CHARACTER:
            return self._written(self._set(kind, value))
        if kind is kinds.SUBPATTERN:
            return f"(?:{self._said(_plain_group(value))})"
        if kind is kinds.BRANCH:
            return f"(?:{'|'.join(self._said(alternative) for alternative in value[1])})"
        if kind in _REPEATS:
            least, most, repeated = value
            return f"(?:{self._said(repeated)}){{{least},{'' if most is kinds.MAXREPEAT else most}}}"
        raise NotRegularError

    def _written(self, ranges: Ranges) -> str:
        written = self._spelling.one_of(ranges)
        if not written:
            raise NotRegularError
        return written

    def _set(self, kind: Any, value: Any) -> Ranges:
        if kind is kinds.ANY:
            return EVERY
        negated = kind is kinds.NOT_LITERAL
        members = [(kinds.LITERAL, value)] if kind is not kinds.IN else value
        if members[0][0] is kinds.NEGATE:
            negated, members = True, members[1:]
        return matching(f"[{'^' * negated}{''.join(_member(*member) for member in members)}]", self._flags)


def _member(kind: Any, value: Any) -> str:
    """A part of a class of characters, as `re` reads it."""
    if kind is kinds.LITERAL:
        return f"\\U{value:08x}"
    if kind is kinds.RANGE:
        return f"\\U{value[0]:08x}-\\U{value[1]:08x}"
    return _CATEGORIES[value]


def _plain_group(value: Any) -> Nodes:
    """The inside of a group; one that switches flags on its way is not written here."""
    _, added, removed, inside = value
    if added or removed:
        raise NotRegularError
    return list(inside)


def _anchored(nodes: Nodes) -> bool:
    """Whether an anchor stands in them, groups and alternatives included."""
    return any(
        kind is kinds.AT
        or (kind is kinds.SUBPATTERN and _anchored(value[3]))
        or (kind is kinds.BRANCH and any(_anchored(alternative) for alternative in value[1]))
        for kind, value in nodes
    )
