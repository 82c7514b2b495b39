"""When two values of a field count as one: each rule's form of a value, equal for equal values."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from functools import lru_cache

from medkd.quality.spoken import normal_form, tokens
from medkd.rules import Compare

_MILLIGRAMS = {"mcg": Decimal("0.001"), "mg": Decimal(1), "g": Decimal(1000), "kg": Decimal(1_000_000)}
_CONNECTORS = frozenset(["and", "or"])


@lru_cache(maxsize=65536)
def form_of(compare: Compare, value: str) -> str:
    """The value as it is compared."""
    return _FORMS[compare](value)


def _exact(value: str) -> str:
    return value.strip()


def _set(value: str) -> str:
    return " ".join(sorted(set(tokens(value)) - _CONNECTORS)) or normal_form(value)


def _dose(value: str) -> str:
    """The normal form with every weight in milligrams."""
    words = normal_form(value).split()
    for place, unit in enumerate(words[1:], start=1):
        if unit in _MILLIGRAMS and words[place - 1].replace(".", "", 1).isdecimal():
            weight = Decimal(words[place - 1]) * _MILLIGRAMS[unit]
            words[place - 1 : place + 1] = [format(weight.normalize(), "f"), "mg"]
    return " ".join(words)


_FORMS: dict[Compare, Callable[[str], str]] = {"exact": _exact, "text": normal_form, "set": _set, "dose": _dose}
