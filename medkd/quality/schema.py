"""From a teacher's or student's text to a valid record, or to one short statement of what is wrong with it.

Three checks, each assuming the one before: strict JSON, the schema's exact shape, each field's domain (`medkd.rules`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from itertools import islice
from typing import TYPE_CHECKING, Any, Literal, NoReturn

from medkd.records import NOT_PROVIDED, Field, Record, RecordSchema
from medkd.rules import NONE, Rule
from medkd.samples import turns

if TYPE_CHECKING:
    from jsonschema import Draft202012Validator
    from jsonschema.exceptions import ValidationError

_FENCE = re.compile(r"\A\s*```[a-zA-Z]*[ \t]*\n(.*)\n[ \t]*```\s*\Z", re.DOTALL)
_MARKDOWN = re.compile(r"\*\*|```|^\s*(?:#{1,6}|[-*•]|\|)\s|^\s*(?:---|\*\*\*)\s*$", re.MULTILINE)
_UNSAYABLE = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")  # Unicode's control characters and surrogates
_SPEAKERS = ("Doctor", "Patient")
_MOST_PROBLEMS = 3
_LONGEST_QUOTE = 60


class InvalidRecord(Exception):  # noqa: N818 - a finding about data, not a failure of the program
    """The text is no valid record. `problem` tells a teacher what to mend; it quotes the text, so `str()` leaves it out."""

    def __init__(self, kind: Literal["not_json", "wrong_shape", "bad_value"], problem: str) -> None:
        super().__init__(kind)
        self.kind = kind
        self.problem = problem


class InvalidConversation(Exception):  # noqa: N818
    """The text is no usable conversation. `problem` tells a teacher what to mend; `str()` leaves it out."""

    def __init__(self, kind: Literal["empty", "markdown", "speakers", "too_short"], problem: str) -> None:
        super().__init__(kind)
        self.kind = kind
        self.problem = problem


def parse_record(text: str, schema: RecordSchema) -> Record:
    """The valid record that a text writes, in the schema's key order; InvalidRecord otherwise.

    Taken off or put right silently: one code fence around everything, white space around values, and the case of
    NOT PROVIDED, "none" and enumerated values.
    """
    record = shaped_record(text, schema)
    problems = list(islice(_domain_problems(schema, record), _MOST_PROBLEMS))
    if problems:
        raise InvalidRecord("bad_value", "; ".join(problems))
    return record


def shaped_record(text: str, schema: RecordSchema) -> Record:
    """As `parse_record`, whatever the values are: what a person can still read. InvalidRecord where the shape is another one."""
    value = _strict_json(text)
    if not _has_shape(schema.fields, value):
        # Listed values are a matter of the domain: their case is put right first.
        errors = (error for error in _validator(schema).iter_errors(value) if error.validator != "enum")
        problems = list(dict.fromkeys(map(_shape_problem, errors)))
        raise InvalidRecord("wrong_shape", "; ".join(problems[:_MOST_PROBLEMS]))
    return _tidied(schema.fields, value, schema.rules, "")


def bad_values(record: Record, schema: RecordSchema) -> list[str]:
    """What `parse_record` would refuse about the values of a record of the right shape: each with its path; quotes them."""
    return list(_domain_problems(schema, _tidied(schema.fields, record, schema.rules, "")))


def check_conversation(text: str, min_exchanges: int) -> None:
    """Whether a teacher wrote the conversation it was asked for; InvalidConversation otherwise.

    Only lines of a doctor and a patient, without markup, at least `min_exchanges` turns of each.
    """
    if not text.strip():
        raise InvalidConversation("empty", "the conversation is empty")
    if _MARKDOWN.search(text):
        raise InvalidConversation("markdown", "write plain text without markdown: no asterisks, headings, lists or fences")
    speakers = [turn.speaker for turn in turns(text)]
    for speaker in speakers:
        if speaker not in _SPEAKERS:
            got = f'the label "{speaker[:_LONGEST_QUOTE]}:"' if speaker else "text before the first label"
            raise InvalidConversation("speakers", f'every line starts with "Doctor:" or "Patient:", got {got}')
    exchanges = min(speakers.count(speaker) for speaker in _SPEAKERS)
    if exchanges < max(min_exchanges, 1):
        raise InvalidConversation("too_short", f"expected at least {min_exchanges} exchanges, got {exchanges}")


def _strict_json(text: str) -> Any:
    fenced = _FENCE.match(text)
    try:
        # Integers are read as floats: Python refuses to convert very long ones, and no leaf of a record is a number anyway.
        return json.loads(
            fenced[1] if fenced else text, object_pairs_hook=_no_repeats, parse_constant=_no_constant, parse_int=float
        )
    except json.JSONDecodeError as error:
        problem = f"not JSON at line {error.lineno}, column {error.colno}: {error.msg}"
        raise InvalidRecord("not_json", problem) from None
    except ValueError as error:
        raise InvalidRecord("not_json", str(error)) from None
    except RecursionError:
        raise InvalidRecord("not_json", "nested too deeply") from None


def _no_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        repeated = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"key {_quoted(repeated)} stands twice in one object")
    return found


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _has_shape(fields: tuple[Field, ...], value: Any) -> bool:
    """Whether the schema's validator finds nothing wrong: forty times faster, and nearly all records are well-formed."""
    if not isinstance(value, dict) or len(value) != len(fields):
        return False
    for field in fields:
        member = value.get(field.name)
        if field.kind == "text":
            fits = isinstance(member, str)
        elif field.kind == "group":
            fits = _has_shape(field.fields, member)
        elif field.kind == "list":
            fits = isinstance(member, list) and all(isinstance(entry, str) for entry in member)
        else:
            fits = isinstance(member, list) and all(_has_shape(field.fields, entry) for entry in member)
        if not fits:
            return False
    return True


@lru_cache(maxsize=32)
def _validator(schema: RecordSchema) -> Draft202012Validator:
    # Only where something is wrong: it takes a tenth of a second to load.
    from jsonschema import Draft202012Validator

    return Draft202012Validator(schema.json_schema())


def _shape_problem(error: ValidationError) -> str:
    """One finding of the validator in a few words; its own message would repeat the whole value."""
    where = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in error.absolute_path).lstrip(".")
    where = where or "the answer"
    got: Any = error.instance
    schema: Any = error.schema
    if error.validator == "required":
        return f"{where}: missing {', '.join(key for key in schema['required'] if key not in got)}"
    if error.validator == "additionalProperties":
        unknown = sorted(set(got) - set(schema["properties"]))
        return f"{where}: unknown {', '.join(_quoted(key) for key in unknown[:_MOST_PROBLEMS])}"
    return f"{where}: expected {schema['type']}, got {_json_type(got)}"


def _json_type(value: Any) -> str:
    names = {dict: "object", list: "array", str: "string", bool: "boolean", type(None): "null"}
    return names.get(type(value), "number")


def _tidied(fields: tuple[Field, ...], value: Record, rules: Mapping[str, Rule], prefix: str) -> Record:
    """The record with its values stripped and its fixed words in their one spelling."""
    tidy: Record = {}
    for field in fields:
        member, path = value[field.name], prefix + field.name
        if field.kind == "text":
            tidy[field.name] = _tidied_text(member, (NOT_PROVIDED, *rules[path].values))
        elif field.kind == "list":
            tidy[field.name] = [_tidied_text(entry, (NOT_PROVIDED, NONE, *rules[path].values)) for entry in member]
        elif field.kind == "group":
            tidy[field.name] = _tidied(field.fields, member, rules, f"{path}.")
        else:
            tidy[field.name] = [_tidied(field.fields, item, rules, f"{path}[].") for item in member]
    return tidy


def _tidied_text(value: str, fixed: tuple[str, ...]) -> str:
    value = value.strip()
    folded = value.lower()
    return next((word for word in fixed if word.lower() == folded), value)


def _domain_problems(schema: RecordSchema, record: Record) -> Iterator[str]:
    rules = schema.rules
    for path, value in _leaves(schema.fields, record, ""):
        entries = value if isinstance(value, list) else [value]
        found = [_list_problem(value, rules[path]) if isinstance(value, list) else ""]
        found += [_value_problem(entry, rules[path]) for entry in entries if value != [NONE]]
        yield from (f"{path}: {problem}" for problem in found if problem)
    for field in schema.fields:
        if field.kind == "items":
            yield from _items_problems(field, record[field.name])


def _leaves(fields: tuple[Field, ...], value: Record, prefix: str) -> Iterator[tuple[str, str | list[str]]]:
    """Each leaf with its path and its whole value: the string of a text, all entries of a list."""
    for field in fields:
        member, path = value[field.name], prefix + field.name
        if field.kind == "group":
            yield from _leaves(field.fields, member, f"{path}.")
        elif field.kind == "items":
            for item in member:
                yield from _leaves(field.fields, item, f"{path}[].")
        else:
            yield path, member


def _value_problem(value: str, rule: Rule) -> str:
    if not value:
        return f"empty; write {NOT_PROVIDED} for a fact that is not given, and leave it out of a list"
    if _UNSAYABLE.search(value):
        return "holds control characters"
    if value == NOT_PROVIDED:
        return ""
    if not _in_domain(value, rule):
        return f"got {_quoted(value)}, expected {rule.domain} or {NOT_PROVIDED}"
    return ""


def _in_domain(value: str, rule: Rule) -> bool:
    if rule.values and value not in rule.values:
        return False
    if len(value) < rule.min_length or (rule.max_length is not None and len(value) > rule.max_length):
        return False
    return not rule.pattern or bool(re.search(rule.pattern, value))


def _list_problem(entries: list[str], rule: Rule) -> str:
    if NOT_PROVIDED in entries:
        return f"{NOT_PROVIDED} inside a list; write [] where nothing was said"
    if NONE in entries and len(entries) > 1:
        return f'"{NONE}" stands beside other entries; it means that there are none'
    return _too_many(entries, rule) or _repeated(entries, str.lower)


def _items_problems(field: Field, items: list[Record]) -> Iterator[str]:
    if any(all(value in (NOT_PROVIDED, []) for value in item.values()) for item in items):
        yield f"{field.name}: an item that says nothing; leave it out"
    problem = _too_many(items, field.rule) or _repeated(items, lambda item: json.dumps(item).lower())
    if problem:
        yield f"{field.name}: {problem}"


def _too_many(entries: list[Any], rule: Rule) -> str:
    if rule.max_items is None or len(entries) <= rule.max_items:
        return ""
    return f"got {len(entries)} entries, expected at most {rule.max_items}"


def _repeated(entries: list[Any], key: Callable[[Any], str]) -> str:
    return "the same entry twice" if len({key(entry) for entry in entries}) < len(entries) else ""


def _quoted(value: str) -> str:
    shown = value if len(value) <= _LONGEST_QUOTE else value[:_LONGEST_QUOTE] + "…"
    return json.dumps(shown, ensure_ascii=False)
