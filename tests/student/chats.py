"""Chat models small enough for a test: a tokenizer with the special tokens and the template of a chat model, and its folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tokenizers import processors

from medkd.records import PATIENT_RECORD
from medkd.student.families import SEPARATOR
from medkd.student.linear import LinearForm
from medkd.student.tokenizer import train_tokenizer
from tests.quality.examples import CONVERSATION
from tests.student.limited import limited_tokenizer
from tests.student.trained import rows

CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
INSTRUCTION = (
    "{% for message in messages %}{% if message.role == 'user' %}{{ bos_token + '[INST] ' + message.content + ' [/INST]' }}"
    "{% else %}{{ ' ' + message.content + ' ' + eos_token }}{% endif %}{% endfor %}"
)
"""As Llama 2 has it: no mark before an answer, and the text's first token is written by the template."""
TEMPLATES = {"chatml": CHATML, "instruction": INSTRUCTION}
ENDS = {"chatml": "<|im_end|>", "instruction": "<end>"}


def chat_tokenizer(template: str) -> Any:
    """A tokenizer that can say any text and begins each one with `<s>`, unless told not to."""
    texts = [CONVERSATION, *(row["input"] + row["output"] for row in rows())]
    raw = train_tokenizer(texts * 2, tags=[*LinearForm(PATIENT_RECORD).tags, SEPARATOR], vocabulary=500)
    raw.add_special_tokens({"bos_token": "<s>", "additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})
    return _beginning(raw, template)


def limited_chat_tokenizer(template: str) -> Any:
    """The same with pieces that open with a mark for the space, and few of them."""
    raw = limited_tokenizer()
    raw.add_special_tokens({"bos_token": "<s>", "additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})
    return _beginning(raw, template)


def _beginning(raw: Any, template: str) -> Any:
    special = [("<s>", raw.bos_token_id)]
    raw.backend_tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=special)
    raw.chat_template = TEMPLATES[template]
    return raw


def write_chat_model(folder: Path, raw: Any, *, weights: bool) -> None:
    """A Llama of two layers beside this tokenizer; without weights, what preparing tokens needs."""
    from transformers import LlamaConfig

    sizes = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = LlamaConfig(
        vocab_size=len(raw),
        bos_token_id=raw.bos_token_id,
        eos_token_id=raw.eos_token_id,
        max_position_embeddings=512,
        tie_word_embeddings=True,
        **sizes,
    )
    raw.save_pretrained(folder)
    if not weights:
        config.save_pretrained(folder)
        return
    import torch
    from transformers import AutoModelForCausalLM

    from medkd.student.copying import start_copying

    torch.manual_seed(1)
    model = AutoModelForCausalLM.from_config(config)
    start_copying(model)
    model.save_pretrained(folder)
