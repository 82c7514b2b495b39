"""A tokenizer like T5's: no braces, no `<`, no line ends, spaces joined and dropped at the ends, accents composed."""

from __future__ import annotations

import string
from typing import Any

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast


def limited_tokenizer() -> Any:
    """Single characters and a few words; everything else is `<unk>`."""
    characters = [c for c in string.ascii_letters + string.digits + string.punctuation if c not in '{}<~\\^`|"']
    pieces = ["<pad>", "</s>", "<unk>", "▁", *characters, "é", *("▁" + c for c in characters), "▁the", "▁Doctor", "tion"]
    unigram = Tokenizer(models.Unigram([(piece, -float(rank)) for rank, piece in enumerate(pieces)], unk_id=2))
    unigram.normalizer = normalizers.Sequence(
        [
            normalizers.NFKC(),
            normalizers.Replace("\n", " "),
            normalizers.Replace(r"\s", " "),
            normalizers.Strip(),
            _joined_spaces(),
        ]
    )
    unigram.pre_tokenizer = pre_tokenizers.Metaspace()
    unigram.decoder = decoders.Metaspace()
    return PreTrainedTokenizerFast(tokenizer_object=unigram, pad_token="<pad>", eos_token="</s>", unk_token="<unk>")


def _joined_spaces() -> Any:
    from tokenizers import Regex

    return normalizers.Replace(Regex(r"\s+"), " ")
