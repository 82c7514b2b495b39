"""The finished student: a folder that plain `from_pretrained` loads, with its tokenizer, its form and a model card."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import GenerationConfig
from transformers.utils import logging

from medkd.config import StudentConfig
from medkd.student.card import CARD_FILE, unscored
from medkd.student.measured import Measured
from medkd.student.tokenizer import StudentTokenizer


@dataclass(frozen=True, kw_only=True)
class Lineage:
    """Where a student comes from."""

    student_name: str
    data_set_hash: str
    plan_hash: str
    config_hash: str
    rows: int
    steps: int
    ranks: int
    seed: int
    measured: Measured | None
    """These weights on the validation split; None where there is none."""


def gather_weights(engine: Any) -> dict[str, Any] | None:
    """The model's weights, whole on rank 0 (None elsewhere, under ZeRO-3). Called on all ranks together."""
    if engine.zero_optimization_stage() < 3:
        return {name.removeprefix("model."): value for name, value in engine.module.state_dict().items()}
    gathered = engine._zero3_consolidated_16bit_state_dict()
    return gathered and {name.removeprefix("model."): value for name, value in gathered.items()}


def write_model(
    model: Any, weights: dict[str, Any], tokenizer: StudentTokenizer, student: StudentConfig, lineage: Lineage, folder: Path
) -> None:
    """Write the model's folder: safetensors, tokenizer, generation settings, `medkd.json` and the card."""
    logging.disable_progress_bar()
    model.generation_config = _generation_config(model, tokenizer, student)
    model.save_pretrained(folder, state_dict=weights)
    tokenizer.save(folder)
    (folder / CARD_FILE).write_text(unscored(_card(student, tokenizer, lineage)), encoding="utf-8")


def _generation_config(model: Any, tokenizer: StudentTokenizer, student: StudentConfig) -> GenerationConfig:
    ids = {"eos_token_id": tokenizer.end, "pad_token_id": tokenizer.pad}
    if model.config.is_encoder_decoder:
        ids["decoder_start_token_id"] = model.config.decoder_start_token_id
    return GenerationConfig(do_sample=False, max_new_tokens=student.max_answer_length, **ids)


def _card(student: StudentConfig, tokenizer: StudentTokenizer, lineage: Lineage) -> str:
    form = tokenizer.form
    loss = _measured(lineage.measured)
    base = "random weights of the sizes below" if student.architecture else f"{student.model_name} at {student.revision}"
    return f"""---
language: [en]
tags: [medkd, information-extraction]
---
# {lineage.student_name}: reads a doctor-patient conversation, writes {tokenizer.linear.schema.subject}

Started from {base}; trained on {lineage.rows:,} conversations for {lineage.steps:,} steps on {lineage.ranks} ranks.
On the validation split: {loss}.

    medkd extract --model FOLDER < conversation.txt

It answers in the linear form of the record schema `{form.schema}`, version {form.schema_version};
`medkd.json` holds that schema whole and says how to ask it. Family: {form.family}.

| lineage | |
| --- | --- |
| data set | `{lineage.data_set_hash}` |
| plan | `{lineage.plan_hash}` |
| configuration | `{lineage.config_hash}` |
| seed | {lineage.seed} |

```json
{student.model_dump_json(indent=1)}
```

Known limits: it agrees with its teacher at best, it was trained on generated conversations, and it is not for clinical decisions.
"""


def _measured(measured: Measured | None) -> str:
    if measured is None:
        return "not measured"
    score = "" if measured.field_f1 is None else f", field F1 {measured.field_f1:.3f} of the answers it wrote"
    return f"{measured.loss:.4f} nats an answer token{score}, after step {measured.step:,} (the weights here)"
