"""Numbers from 0 to 120 as people say them, both ways."""

from __future__ import annotations

import re

_UNITS = (
    "zero one two three four five six seven eight nine ten "
    "eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen nineteen"
).split()
_TENS = "twenty thirty forty fifty sixty seventy eighty ninety".split()


def spell(number: int) -> str:
    """`42` as `forty-two`; 0 to 99, larger numbers as digits."""
    if number < 20:
        return _UNITS[number]
    if number > 99:
        return str(number)
    tens, unit = _TENS[number // 10 - 2], number % 10
    return f"{tens}-{_UNITS[unit]}" if unit else tens


_VALUES = {spell(number): number for number in range(100)} | {"a hundred": 100, "one hundred": 100}

_UNIT_AFTER_TENS = r"[- ](?:" + "|".join(_UNITS[1:10]) + r")\b"
NUMBER_PATTERN = (
    rf"(?:\d{{1,3}}|(?:a|one) hundred|(?:{'|'.join(_TENS)})(?:{_UNIT_AFTER_TENS}|(?!{_UNIT_AFTER_TENS}))"
    rf"|{'|'.join(sorted(_UNITS, key=len, reverse=True))})"
)
"""Regular expression for one number of this module, in digits or words; no groups, to be matched without case."""


def value_of(words: str) -> int | None:
    """The number that `words` say, in digits or words, or None."""
    words = re.sub(r"[\s-]+", " ", words.strip().lower())
    if words.isdigit():
        return int(words)
    return _VALUES.get(words, _VALUES.get(words.replace(" ", "-")))
