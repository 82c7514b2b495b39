"""How a chat model is spoken to: the text that its tokenizer's own chat template writes around a conversation. No torch.

The template is run where tokens are made, and never again: what it writes is kept in the student's form. Some templates write
today's date or what a library passes them, and a student has to be asked as it was trained.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import takewhile
from typing import Any

from jinja2 import TemplateError

from medkd.errors import ConfigError

# Of one letter each, and of another one: what two renderings share is the template's, to the letter.
_TEXTS = ("q", "z")
_ANSWER = "Fine, she said."
_CONVERSATION = "Doctor: How are you?\nPatient: Fine [so far]."


@dataclass(frozen=True, kw_only=True)
class ChatTurns:
    """What stands around a conversation in the user's turn, and how the assistant's turn ends."""

    before: str
    """From the text's first token to the conversation."""
    after: str
    """From the conversation to the answer."""
    end: int
    """Id of the token that ends an answer: the template's end of turn, where that is a special token, else the end of text."""
    between: str | None = None
    """From an answer to another conversation after it; None: the template takes no second one, or nobody looked (folders of
    before)."""


def find_turns(tokenizer: Any) -> ChatTurns:
    """The turns of a tokenizer's chat template; ConfigError where it has none or does not leave a conversation as it is."""
    if not tokenizer.chat_template:
        raise ConfigError(
            "prompt_template: got chat, but the model's tokenizer has no chat template; name a chat model, or plain"
        )
    try:
        before, after = _around(*(_prompt(tokenizer, text) for text in _TEXTS))
        said = _prompt(tokenizer, _CONVERSATION)
        _, closing = _around(*(_prompt(tokenizer, _CONVERSATION, text) for text in _TEXTS))
    except (TemplateError, ValueError, TypeError) as error:
        raise ConfigError(
            f"prompt_template: the tokenizer's chat template takes no user turn with an answer ({error}); choose plain"
        ) from error
    if said != before + _CONVERSATION + after:
        raise ConfigError("prompt_template: the tokenizer's chat template changes what the user says; choose plain")
    return ChatTurns(before=before, after=after, end=_end(tokenizer, closing), between=_between(tokenizer, after))


def special_names(tokenizer: Any) -> frozenset[str]:
    """Texts that the tokenizer takes for special tokens."""
    added = {token.content for token in tokenizer.added_tokens_decoder.values() if token.special}
    return frozenset(added | set(tokenizer.all_special_tokens))


def _between(tokenizer: Any, after: str) -> str | None:
    first = [{"role": "user", "content": _CONVERSATION}, {"role": "assistant", "content": _ANSWER}]
    try:
        text = tokenizer.apply_chat_template(
            [*first, {"role": "user", "content": _TEXTS[0]}], tokenize=False, add_generation_prompt=True
        )
    except (TemplateError, ValueError, TypeError):
        return None
    said, _, rest = text.partition(_ANSWER)
    found: str = rest.removesuffix(_TEXTS[0] + after)
    return found if _CONVERSATION in said and found != rest else None


def _prompt(tokenizer: Any, conversation: str, answer: str | None = None) -> str:
    turns = [{"role": "user", "content": conversation}]
    if answer is not None:
        turns.append({"role": "assistant", "content": answer})
    text: str = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=answer is None)
    return text


def _around(one: str, other: str) -> tuple[str, str]:
    """What two texts that differ in one place begin and end with."""
    return _shared(one, other), _shared(one[::-1], other[::-1])[::-1]


def _shared(one: str, other: str) -> str:
    """What two texts begin with."""
    return "".join(letter for letter, _ in takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))


def _end(tokenizer: Any, closing: str) -> int:
    special = {tokenizer.convert_tokens_to_ids(name) for name in special_names(tokenizer)} - {tokenizer.unk_token_id}
    found = (id_ for id_ in tokenizer(closing, add_special_tokens=False)["input_ids"] if id_ in special)
    end: int = next(found, tokenizer.eos_token_id)
    return end
