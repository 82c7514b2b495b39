"""Decoding that can write nothing but records: at each step, only tokens that keep the answer in the grammar of the schema.

The grammar (`grammar.py`) is over the text as the tokenizer spells it, escapes included; llguidance (extra `constrained`) says
which tokens go on from where an answer stands.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Any

import torch
from torch import Tensor

from medkd.errors import ConfigError
from medkd.student.grammar import patterns_not_held_to, record_grammar
from medkd.student.tokenizer import StudentTokenizer
from medkd.telemetry import event

_SPACE_MARK = "▁"


class RecordGrammar:
    """What a student may write, for any number of batches; ConfigError where llguidance is not installed."""

    def __init__(self, tokenizer: StudentTokenizer) -> None:
        try:
            from llguidance import LLMatcher, LLTokenizer, TokenizerWrapper
        except ImportError as error:
            raise ConfigError(
                "--constrained, evaluate.constrained: need package llguidance; install it with: pip install 'medkd[constrained]'"
            ) from error
        raw = tokenizer.tokenizer
        special = {id_ for id_, token in raw.added_tokens_decoder.items() if token.special} | set(raw.all_special_ids)
        vocabulary = _Vocabulary(token_bytes(raw), special, tokenizer.end)
        self._tokenizer = LLTokenizer(TokenizerWrapper(vocabulary))
        self._size = len(vocabulary.tokens)
        spelled = tokenizer.linear, tokenizer.form.escapes, tokenizer.says
        # A tokenizer that gives each first word a space takes it away again when it decodes.
        strips = tokenizer.decode(raw(" a", add_special_tokens=False)["input_ids"]) == "a"
        # Copies share what was found out about the grammar's states, and cost next to nothing.
        self._beginning = LLMatcher(self._tokenizer, record_grammar(*spelled, after_space=strips))
        if self._beginning.is_error():
            raise RuntimeError(f"llguidance: {self._beginning.get_error().splitlines()[0]}")
        if free := patterns_not_held_to(*spelled):
            event("patterns that answers are not held to", fields=", ".join(free))

    def follow(self, rows: int) -> Constraint:
        """For one batch of so many answers, from their beginning."""
        return Constraint([self._beginning.deep_copy() for _ in range(rows)], self._size)


class Constraint:
    """Where the answers of a batch stand in the grammar."""

    def __init__(self, matchers: list[Any], size: int) -> None:
        self._matchers = matchers
        self._bits = torch.zeros(len(matchers), (size + 31) // 32, dtype=torch.int32)
        self._begun = False

    def allow(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """scores [rows, vocabulary] with -inf for tokens after which the answer would be no record; input_ids as `generate`
        has them, the token written last at their end."""
        for row, matcher in enumerate(self._matchers):
            if self._begun and not matcher.is_stopped():
                matcher.consume_token(int(input_ids[row, -1]))
            if matcher.is_error():
                raise RuntimeError(f"llguidance: {matcher.get_error().splitlines()[0]}")
            if matcher.is_stopped():
                self._bits[row] = -1
            else:
                matcher.unsafe_compute_mask_ptr(self._bits[row].data_ptr(), self._bits.shape[1] * 4)
        self._begun = True
        allowed = ((self._bits[:, :, None] >> torch.arange(32, dtype=torch.int32)) & 1).bool().flatten(1)[:, : scores.shape[1]]
        # Models pad their vocabulary; what no token stands for is never written.
        full = torch.zeros(scores.shape, dtype=torch.bool)
        full[:, : allowed.shape[1]] = allowed
        return scores.masked_fill(~full.to(scores.device), float("-inf"))


class _Vocabulary:
    """A vocabulary as llguidance asks for one."""

    def __init__(self, tokens: list[bytes], special: Collection[int], end: int) -> None:
        self.tokens, self.special_token_ids = tokens, sorted(special)
        self.eos_token_id, self.bos_token_id = end, None
        self._ids = {token: id_ for id_, token in enumerate(tokens) if token and id_ not in special}
        self._longest = max(map(len, self._ids))

    def __call__(self, text: bytes) -> list[int]:
        """Ids of a text in the middle of an answer, where the tokenizer itself would begin a new word: the longest first."""
        ids: list[int] = []
        while text:
            sizes = range(min(self._longest, len(text)), 0, -1)
            size = next((size for size in sizes if text[:size] in self._ids), 0)
            if not size:
                break
            ids.append(self._ids[text[:size]])
            text = text[size:]
        return ids


def token_bytes(tokenizer: Any) -> list[bytes]:
    """What each id of a Hugging Face tokenizer adds to a text, by id; UTF-8, possibly a part of a character.

    Byte-level tokenizers (GPT-2) spell bytes as letters, SentencePiece ones (T5, Llama) a space as a mark and a byte as `<0x0A>`.
    """
    by_bytes = "ByteLevel" in str(getattr(tokenizer.backend_tokenizer, "decoder", ""))
    added = tokenizer.added_tokens_decoder
    found = []
    for id_, token in enumerate(tokenizer.convert_ids_to_tokens(range(len(tokenizer)))):
        if id_ in added or token is None:
            found.append((token or "").encode())
        elif by_bytes:
            found.append(bytes(_BYTE_OF[letter] for letter in token))
        elif match := re.fullmatch(r"<0x([0-9A-F]{2})>", token):
            found.append(bytes.fromhex(match[1]))
        else:
            found.append(token.replace(_SPACE_MARK, " ").encode())
    return found


def _byte_letters() -> dict[str, int]:
    """The letter that stands for each byte in byte-level vocabularies: itself where it is printable, else the next one from
    U+0100 on (Radford et al. 2019, GPT-2's encoder)."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(0x100 + place): byte for place, byte in enumerate(others)}


_BYTE_OF = _byte_letters()
