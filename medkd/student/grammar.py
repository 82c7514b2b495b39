"""What a student may write, as a grammar for llguidance: the linear form of the schema's records, and their values' domains.

One regular expression in Lark's syntax, with llguidance's `&` and `~`. Fields come in the schema's order, which is how students
learn them. What a regular expression cannot say is not held to: that no entry of a list stands there twice. No torch.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator

from medkd.records import NOT_PROVIDED, Field
from medkd.rules import NONE, Rule
from medkd.student.characters import EVERY, Spelling, common, literal, matching, others
from medkd.student.escapes import Escapes
from medkd.student.linear import LinearForm
from medkd.student.patterns import NotRegularError, values_with


def record_grammar(linear: LinearForm, escapes: Escapes, says: Callable[[str], bool], *, after_space: bool = False) -> str:
    """A grammar of the escaped linear form of every valid record, its fields in the schema's order.

    says: whether the tokenizer keeps a character, as for `Escapes.write`. after_space: it may begin with a space.
    """
    return "\n".join(_Grammar(linear, escapes, says).lines(after_space))


def patterns_not_held_to(linear: LinearForm, escapes: Escapes, says: Callable[[str], bool]) -> list[str]:
    """The fields whose `pattern` the grammar cannot hold a student to, by their paths in the schema."""
    spelling = Spelling(escapes, says)
    return [path for path, rule in linear.schema.rules.items() if rule.pattern and not _pattern(rule, spelling)]


class _Grammar:
    def __init__(self, linear: LinearForm, escapes: Escapes, says: Callable[[str], bool]) -> None:
        self._linear, self._spelling = linear, Spelling(escapes, says)
        self._tags = {slot.path: json.dumps(escapes.write(tag, says), ensure_ascii=False) for tag, slot in linear.slots.items()}
        self._space = f"/ |{literal(escapes.sign)}s/"

    def lines(self, after_space: bool) -> Iterator[str]:
        any_character = self._spelling.one_of(EVERY)
        edge = self._spelling.one_of(common(matching(r"\S"), others(matching("[\x1c-\x1f\x85]"))))
        yield "start: RECORD"
        yield f"SPACE: {self._space}"
        yield f"ANY: /{any_character}/"
        yield f"EDGE: /{edge}/"
        yield f"UNSAID: /{self._spelling.text(NOT_PROVIDED, any_case=True)}/"
        yield f"NOTHING: /{self._spelling.text(NONE, any_case=True)}/"
        yield "SAID: EDGE (ANY* EDGE)? & ~UNSAID"
        names = []
        for number, field in enumerate(self._linear.schema.fields):
            names.append(f"FIELD{number}")
            yield from self._field(names[-1], field)
        yield " ".join(["RECORD:", *(['" "?'] if after_space else []), *names])

    def _field(self, name: str, field: Field) -> Iterator[str]:
        if not field.fields:
            yield from self._leaf(name, field, (field.name,))
            yield f"{name}: {name}X?"
            return
        members = []
        for number, member in enumerate(field.fields):
            members.append(f"{name}M{number}")
            yield from self._leaf(members[-1], member, (field.name, member.name))
        if field.kind == "group":
            yield f"{name}: {' '.join(f'{member}X?' for member in members)}"
            return
        # An item says something: its first member that does is any of them.
        from_here = [[f"{member}X", *(f"{later}X?" for later in members[place + 1 :])] for place, member in enumerate(members)]
        yield f"{name}I: {self._tags[field.name,]} ({' | '.join(map(' '.join, from_here))})"
        yield f"{name}: {name}I{_at_most(field.rule.max_items)}"

    def _leaf(self, name: str, field: Field, path: tuple[str, ...]) -> Iterator[str]:
        """Terminals: NAMEV, a value; NAMEX, the field with what it says."""
        yield f"{name}V: {' & '.join(self._domain(field))}"
        tag = f"{self._tags[path]} SPACE"
        if field.kind == "text":
            yield f"{name}X: {tag} {name}V"
        else:
            entries = f"{tag} {name}V ({tag} {name}V){_at_most(field.rule.max_items, already=1)}"
            yield f"{name}X: {tag} /{self._spelling.text(NONE)}/ | {entries}"

    def _domain(self, field: Field) -> Iterable[str]:
        rule = field.rule
        yield "SAID"
        if field.kind == "list":
            yield "~NOTHING"
        if rule.values:
            yield f"/{'|'.join(map(self._spelling.text, rule.values))}/"
        if rule.min_length or rule.max_length is not None:
            yield f"ANY{{{rule.min_length},{'' if rule.max_length is None else rule.max_length}}}"
        if pattern := _pattern(rule, self._spelling):
            yield f"/{pattern}/"


def _pattern(rule: Rule, spelling: Spelling) -> str:
    try:
        return values_with(rule.pattern, spelling) if rule.pattern else ""
    except NotRegularError:
        return ""


def _at_most(count: int | None, already: int = 0) -> str:
    return "*" if count is None else f"{{0,{count - already}}}"
