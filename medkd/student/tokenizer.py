"""A student's tokenizer: conversations and records as ids and back, without loss. Imports no torch."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path
from typing import Any, Literal

from medkd.config import StudentConfig
from medkd.errors import ConfigError
from medkd.records import RECORD_SCHEMAS, Record, RecordSchema
from medkd.samples import Window
from medkd.schema_documents import document_of, schema_of
from medkd.student.chat import ChatTurns, find_turns, special_names
from medkd.student.escapes import Escapes, find_escapes, is_plain, says
from medkd.student.families import FAMILIES, Example, Family, FamilyName
from medkd.student.linear import BrokenLinearError, LinearForm
from medkd.student.windows import NoRoomError, cut, whole

FORM_FILE = "medkd.json"
PAD, END = "<pad>", "<end>"


Reason = Literal["conversation_too_long", "answer_too_long", "not_sayable"]


class DoesNotFitError(Exception):
    """A sample that a student cannot take whole. `reason` is what the counts are named by."""

    def __init__(self, reason: Reason) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True, kw_only=True)
class StudentForm:
    """How a student is spoken to: `medkd.json` beside its tokenizer and its model, all that `extract` needs to know."""

    family: FamilyName
    schema: str
    """Name of the record schema."""
    schema_version: int
    escapes: Escapes
    max_length: int
    max_answer_length: int
    record_schema: dict[str, Any] | None = None
    """The schema's whole document, so that a model's folder is enough anywhere; None in folders of before."""
    window_overlap: int | None = None
    """Turns that neighbouring windows of a long conversation share; None: what is too long is not read."""
    answer_room: int = 1
    """Tokens of `max_length` that a prompt leaves for the answer and its end; matters where both share it."""
    chat: ChatTurns | None = None
    """What a chat model's own template writes around a conversation; None: the conversation, then the family's separator."""
    format: int = 1

    @property
    def fields(self) -> RecordSchema:
        """The schema that the student answers in; ConfigError where the form holds none that can be read."""
        if self.record_schema is None:
            return _known_schema(self.schema)
        try:
            return schema_of(self.record_schema)
        except ValueError as error:
            raise ConfigError(f"{FORM_FILE}: {error}") from error

    def write(self, folder: Path) -> None:
        """Store the form in a model's or tokenizer's folder."""
        (folder / FORM_FILE).write_text(json.dumps(asdict(self), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")

    @classmethod
    def read(cls, folder: Path) -> StudentForm:
        """The form stored in the folder; ConfigError where there is none."""
        try:
            return cls.parse((folder / FORM_FILE).read_bytes())
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise ConfigError(f"{folder}: no readable {FORM_FILE}, so this is no student of medkd") from error

    @classmethod
    def parse(cls, content: bytes) -> StudentForm:
        """The form in a file's bytes; ValueError, TypeError or KeyError where it is none."""
        raw = json.loads(content)
        chat = ChatTurns(**raw["chat"]) if raw.get("chat") else None
        return cls(**{**raw, "escapes": Escapes(**raw["escapes"]), "chat": chat})


class StudentTokenizer:
    """A Hugging Face tokenizer that loses nothing: what its vocabulary cannot say is escaped."""

    def __init__(self, tokenizer: Any, form: StudentForm, schema: RecordSchema | None = None) -> None:
        if tokenizer.eos_token_id is None:
            raise ConfigError("model_name: its tokenizer has no end-of-text token, expected one that ends the answer")
        self.tokenizer = tokenizer
        self.form = form
        self.linear = LinearForm(schema or form.fields)
        self.end: int = form.chat.end if form.chat else tokenizer.eos_token_id
        # Padding is told by lengths, never by its id, so a model without a pad token may pad with its end.
        self.pad: int = self.end if tokenizer.pad_token_id is None else tokenizer.pad_token_id
        self._prefix = [id_ for id_ in tokenizer("")["input_ids"] if id_ != self.end]
        self._sayable: dict[str, bool] = {}
        self._special = special_names(tokenizer) if form.chat else frozenset[str]()
        self._separator = self.encode(self.family.separator) if self.family.separator else []

    @property
    def family(self) -> Family:
        return FAMILIES[self.form.family]

    def encode(self, text: str) -> list[int]:
        """Ids that `decode` turns into exactly this text; DoesNotFitError where the tokenizer cannot be made to say it."""
        return self._said(text)[1]

    def _said(self, text: str) -> tuple[str, list[int]]:
        """The text with its escapes, and its ids."""
        escapes = self.form.escapes
        # Characters that survive alone may not survive together (an accent that joins its letter), hence three tries.
        for kept in (self.says, lambda character: character.isascii() and self.says(character), is_plain):
            escaped = escapes.write(text, kept)
            ids = _encode(self.tokenizer, escaped)
            if _decode(self.tokenizer, ids) == escaped:
                return escaped, ids
        raise DoesNotFitError("not_sayable")

    def decode(self, ids: Sequence[int]) -> str:
        """The text of the ids, special tokens left out; a broken escape stays as it is written."""
        escaped = _decode(self.tokenizer, ids)
        try:
            return self.form.escapes.read(escaped)
        except ValueError:
            return escaped

    def example(self, conversation: str, record: Record) -> Example:
        """One training example; DoesNotFitError where it is longer than the student takes."""
        answer = self.encode(self.linear.write(record))
        room = self.family.room(self.form.max_length, self.form.max_answer_length, len(answer) + 1)
        if room < 0:
            raise DoesNotFitError("answer_too_long")
        prompt = self._prompt(conversation)
        if len(prompt) > min(room, self.prompt_room):
            raise DoesNotFitError("conversation_too_long")
        return self.family.example(prompt, answer, self.end)

    def prompt(self, conversation: str) -> list[int]:
        """What the model reads before it writes; DoesNotFitError where it is longer than the student takes."""
        prompt = self._prompt(conversation)
        if len(prompt) > self.prompt_room:
            raise DoesNotFitError("conversation_too_long")
        return self.family.prompt(prompt, self.end)

    @property
    def prompt_room(self) -> int:
        """Tokens that a prompt may have, so that there is room for the answer."""
        return self.family.room(self.form.max_length, self.form.max_answer_length, self.form.answer_room)

    def windows(self, conversation: str) -> list[Window]:
        """The parts that the student reads a conversation in: one, the conversation itself, where it fits or is not to be cut.

        DoesNotFitError where it cannot be said, or where a window has no room for a single letter.
        """
        if self.form.window_overlap is None:
            return [whole(conversation)]
        try:
            return cut(conversation, lambda text: len(self._prompt(text)), self.prompt_room, self.form.window_overlap)
        except NoRoomError:
            raise DoesNotFitError("conversation_too_long") from None

    def record(self, text: str) -> Record | None:
        """The record that a student's answer says, None where it says none."""
        try:
            return self.linear.read(text)
        except BrokenLinearError:
            return None

    def save(self, folder: Path) -> None:
        """Write the tokenizer and the form into a folder."""
        folder.mkdir(parents=True, exist_ok=True)
        self.tokenizer.save_pretrained(folder)
        self.form.write(folder)

    @classmethod
    def load(cls, folder: Path, schema: RecordSchema | None = None) -> StudentTokenizer:
        """The tokenizer that `save` wrote; `schema` in place of the one that its form holds."""
        from transformers import AutoTokenizer

        form = StudentForm.read(folder)
        return cls(AutoTokenizer.from_pretrained(folder), form, schema)

    def _prompt(self, conversation: str) -> list[int]:
        shown = self.linear.schema.shown(conversation)
        if self.form.chat:
            return self._chat_prompt(shown, self.form.chat)
        return [*self._prefix, *self.encode(shown), *self._separator]

    def _chat_prompt(self, conversation: str, turns: ChatTurns) -> list[int]:
        """The template's text as one, as other programs tokenise it. A conversation that names a special token is told apart from
        the template by pieces: nothing that is said in it ends the user's turn."""
        escaped, ids = self._said(conversation)
        if any(name in escaped for name in self._special):
            return [*self._template_ids(turns.before), *ids, *self._template_ids(turns.after)]
        return self._template_ids(turns.before + escaped + turns.after)

    def _template_ids(self, text: str) -> list[int]:
        """Ids of what a chat template wrote: special tokens are special, and none is added, as it writes its own first one."""
        ids: list[int] = self.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
        return ids

    def says(self, character: str) -> bool:
        if character not in self._sayable:
            self._sayable[character] = says(character, lambda text: _round_trip(self.tokenizer, text))
        return self._sayable[character]


def make_tokenizer(
    tokenizer: Any, *, family: Family, student: StudentConfig, schema: RecordSchema, texts: Iterable[str]
) -> StudentTokenizer:
    """The lossless tokenizer around `tokenizer`, its escapes found for these texts and the tags of the schema."""
    if student.prompt_template == "chat" and family.name != "causal":
        raise ConfigError(f"prompt_template: got chat for a model of the family {family.name}, expected plain")
    tags = LinearForm(schema).tags
    try:
        escapes = find_escapes(chain(texts, tags, [family.separator]), lambda text: _round_trip(tokenizer, text))
    except ValueError as error:
        raise ConfigError(f"model_name: {error}; such a tokenizer cannot be trained on") from error
    form = StudentForm(
        family=family.name,
        schema=schema.name,
        schema_version=schema.version,
        escapes=escapes,
        max_length=student.max_length,
        max_answer_length=student.max_answer_length,
        record_schema=document_of(schema),
        window_overlap=student.window_overlap if student.too_long == "windows" else None,
        chat=find_turns(tokenizer) if student.prompt_template == "chat" else None,
    )
    return StudentTokenizer(tokenizer, form, schema)


def train_tokenizer(texts: Iterable[str], *, tags: Sequence[str], vocabulary: int) -> Any:
    """A byte-level BPE tokenizer learned from the texts, with one more token for each tag. It can say any text.

    Bytes keep it lossless, and frequent words become one token each, which is what a tiny model copies best.
    """
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=max(vocabulary - len(tags), 258),
        min_frequency=2,
        special_tokens=[PAD, END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(texts, trainer)
    bpe.add_tokens([AddedToken(tag, normalized=False) for tag in tags])
    return PreTrainedTokenizerFast(tokenizer_object=bpe, pad_token=PAD, eos_token=END, clean_up_tokenization_spaces=False)


def _known_schema(name: str) -> RecordSchema:
    if name not in RECORD_SCHEMAS:
        raise ConfigError(f"record schema: got {name!r}, known: {', '.join(sorted(RECORD_SCHEMAS))}")
    return RECORD_SCHEMAS[name]


def _decode(tokenizer: Any, ids: Sequence[int]) -> str:
    text: str = tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    return text


def _encode(tokenizer: Any, text: str) -> list[int]:
    """Ids of the text alone; the name of a special token inside it counts as text."""
    ids: list[int] = tokenizer(text, add_special_tokens=False, split_special_tokens=True, verbose=False)["input_ids"]
    return ids


def _round_trip(tokenizer: Any, text: str) -> str:
    return _decode(tokenizer, _encode(tokenizer, text))
