"""Escapes: any text rewritten with characters that a tokenizer can say, and back.

T5's tokenizer, for one, drops line ends, joins spaces and has no `{ } < ~`. Which characters a tokenizer cannot say is
found by asking it (encode, decode, compare). Such a character becomes the escape sign and a letter (`|n` for a line end),
or, where the data the map was made from did not have it, the sign, `u`, its code point in hex and the sign (`|u1f9ec|`).
The sign itself is doubled.
"""

from __future__ import annotations

import string
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

RoundTrip = Callable[[str], str]
"""What a tokenizer makes of a text: encode, then decode."""

_SIGNS = "|~^#*%&@_=+/;"
_LETTERS = "n" + "".join(letter for letter in string.ascii_lowercase if letter not in "nsu")
_PLAIN = frozenset(string.ascii_letters + string.digits)


@dataclass(frozen=True, kw_only=True)
class Escapes:
    """How one tokenizer's texts are escaped.

    sign: the escape sign. codes: characters of the data that the tokenizer cannot say, to their letters. loses_spaces:
    whether the tokenizer drops spaces at the ends of a text and in runs; these are then escaped too.
    """

    sign: str
    codes: Mapping[str, str]
    loses_spaces: bool

    def write(self, text: str, says: Callable[[str], bool]) -> str:
        """The text with the characters escaped that the tokenizer does not say."""
        written: list[str] = []
        for position, character in enumerate(text):
            if character == " ":
                inner = bool(written) and written[-1] != " " and text[position + 1 : position + 2] not in ("", " ")
                written.append(" " if inner or not self.loses_spaces else f"{self.sign}s")
            elif character == self.sign or character in self.codes or not says(character):
                written.append(self._code(character))
            else:
                written.append(character)
        return "".join(written)

    def read(self, text: str) -> str:
        """The text that was escaped; ValueError where an escape is broken."""
        letters = {code: character for character, code in self.codes.items()}
        pieces, position = [], 0
        while (found := text.find(self.sign, position)) >= 0:
            pieces.append(text[position:found])
            code = text[found + 1 : found + 2]
            end = found + 2
            if code == "u":
                end = text.index(self.sign, end) + 1
                pieces.append(chr(int(text[found + 2 : end - 1], 16)))
            elif code in (self.sign, "s"):
                pieces.append(" " if code == "s" else self.sign)
            elif code in letters:
                pieces.append(letters[code])
            else:
                raise ValueError("an escape that stands for nothing")
            position = end
        return "".join(pieces) + text[position:]

    def _code(self, character: str) -> str:
        if character == self.sign:
            return self.sign * 2
        code = self.codes.get(character)
        return f"{self.sign}{code}" if code else f"{self.sign}u{ord(character):x}{self.sign}"


def find_escapes(texts: Iterable[str], round_trip: RoundTrip) -> Escapes:
    """The escapes that a tokenizer needs for these texts, the most frequent characters with the first letters.

    ValueError where the tokenizer can say none of the signs.
    """
    counts = Counter(character for text in texts for character in text if character != " ")
    unsaid = [character for character, _ in sorted(counts.items(), key=_by_count) if not says(character, round_trip)]
    sign = next((sign for sign in _SIGNS if says(sign, round_trip)), None)
    if sign is None:
        raise ValueError(f"the tokenizer can say none of {_SIGNS}")
    ordered = sorted(unsaid, key=lambda character: character != "\n")
    loses_spaces = any(round_trip(text) != text for text in ("a  b", " a", "a ", "a  ", "a | b"))
    return Escapes(sign=sign, codes=dict(zip(ordered, _LETTERS, strict=False)), loses_spaces=loses_spaces)


def says(character: str, round_trip: RoundTrip) -> bool:
    """Whether the tokenizer keeps the character wherever it stands."""
    return all(round_trip(text) == text for text in (f"a{character}b", f"a {character} b", f"{character}a", f"a{character}"))


def is_plain(character: str) -> bool:
    """Whether any tokenizer should say the character: an ASCII letter or digit."""
    return character in _PLAIN


def _by_count(counted: tuple[str, int]) -> tuple[int, str]:
    return -counted[1], counted[0]
