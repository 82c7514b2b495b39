"""A chat model from its folder through tokens, ranks, the model folder and plain `from_pretrained` to the records."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from medkd.config import StudentConfig
from medkd.store.files import open_store
from tests.student.chats import ENDS, TEMPLATES, chat_tokenizer, write_chat_model
from tests.student.trained import prepare_tokens, rows, train

pytestmark = [pytest.mark.torch, pytest.mark.timeout(600)]


@pytest.mark.parametrize("template", TEMPLATES)
def test_a_chat_model_learns_five_records_by_heart_and_is_asked_as_it_was_trained(template: str, tmp_path: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from medkd.student.decode import Extractor

    raw = chat_tokenizer(template)
    write_chat_model(tmp_path / "pretrained", raw, weights=True)
    recipe = {"max_length": 400, "batch_size": 3, "learning_rate": 5e-3, "num_epochs": 200, "zero_stage": 1}
    student = StudentConfig.model_validate(
        {
            "model_name": str(tmp_path / "pretrained"),
            "prompt_template": "chat",
            "best_by": "last",
            "validation_samples": 0,
            **recipe,
        }
    )
    store = open_store(str(tmp_path / "run"))
    prepare_tokens(store, "tiny", student)
    assert train(tmp_path, "tiny", student) == 0

    folder = tmp_path / "run/students/tiny/model"
    extractor = Extractor.load(folder)
    extractions = extractor.extract([row["input"] for row in rows()])
    assert [extraction.record for extraction in extractions] == [json.loads(row["output"]) for row in rows()]

    # And by another program, which knows the template alone.
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModelForCausalLM.from_pretrained(folder)
    assert tokenizer.convert_ids_to_tokens(model.generation_config.eos_token_id) == ENDS[template]
    turns = [{"role": "user", "content": rows()[0]["input"]}]
    asked = tokenizer.apply_chat_template(turns, add_generation_prompt=True, return_tensors="pt")["input_ids"]
    written = model.generate(input_ids=asked, attention_mask=torch.ones_like(asked))[0, asked.shape[1] :]
    assert tokenizer.decode(written, skip_special_tokens=True) == extractions[0].raw_text
