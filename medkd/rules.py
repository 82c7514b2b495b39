"""What a record schema says of one field beside its shape: what may stand there, what supports it, how it is compared.

A record schema's document holds these: JSON Schema's own keywords for the domain, the field's `x-medkd` for the rest.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

NONE = "none"
"""The only entry of a list that the conversation denies explicitly."""

Compare = Literal["exact", "text", "set", "dose"]
Support = Literal["words", "literal", "name", "age", "sex", "drug", "turn", "nothing"]
Whose = Literal["anyone", "patient", "family"]

_SEXES = ("male", "female")


@dataclass(frozen=True, kw_only=True)
class Rule:
    """The rule of one leaf. NOT PROVIDED and an empty list may stand everywhere: they claim nothing."""

    compare: Compare = "text"
    """When two values count as one: `exact`, every character is the same; `text`, words and numbers are, however spelled (`twenty
    milligrams`, `20 mg`); `set`, the same words in any order; `dose`, as `text`, and weights in any unit (`0.5 g`, `500 mg`).
    Entries of a list have no order, whatever the rule."""
    support: Support = "words"
    """Where the conversation says a value: `literal`, the whole value within one turn; `name`, each of its words somewhere;
    `age`, a number that counts nothing else; `sex`, a cue about the patient; `drug`, one of its names; `words`, most of its
    content words within one or two turns, numbers always; `turn`, the value is the number of a turn, which in a list item says
    at least something of it; `nothing`, it is not looked for."""
    enum: tuple[str, ...] = ()
    """The values there are, taken in any case; empty: any text."""
    pattern: str = ""
    """Regular expression that must be found in a value; empty: anything."""
    min_length: int = 0
    max_length: int | None = None
    """Characters of a value."""
    max_items: int | None = None
    """Entries of a list, or items."""
    expected: str = ""
    """The domain in words, for whoever repairs a value; empty: as the keywords above say it."""
    whose: Whose = "anyone"
    """Whom the words that support a value must be about, affirming it; `anyone`: neither is judged."""
    tied_to: str = ""
    """A member of the same item which the value must be said of (a drug), or which the turn must say something of."""
    denied_about: tuple[str, ...] = ()
    """Beginnings of words one of which must be near a denial to support ["none"]; empty: any denial does."""

    @property
    def values(self) -> tuple[str, ...]:
        """The only values there are; empty: any."""
        return _SEXES if self.support == "sex" else self.enum

    @property
    def hint(self) -> str:
        """The domain as a teacher is told it behind the field's description; empty where that is left to the description."""
        if self.enum:
            return f"; one of: {', '.join(self.enum)}"
        return f"; {self.domain}" if self.support == "turn" or (self.pattern and not self.expected) else ""

    @property
    def domain(self) -> str:
        """What may stand in the field, in words."""
        if self.expected:
            return self.expected
        if self.values:
            return " or ".join(self.values)
        if self.support == "turn":
            tie = f", one that says something of {self.tied_to}" if self.tied_to else ""
            return f"the number that stands before a turn{tie}"
        said = [f"text that matches {self.pattern}"] if self.pattern else ["text"]
        said += [f"of at least {self.min_length} characters"] if self.min_length else []
        said += [f"of at most {self.max_length} characters"] if self.max_length is not None else []
        return " ".join(said)


ANY_TEXT = Rule()
