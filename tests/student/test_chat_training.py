"""A chat model from its folder through tokens, ranks, the model folder and plain `from_pretrained` to the records."""

from __future__ import annotations

import json
import shutil
import threading
from pathlib import Path
from typing import Any

import pytest

from medkd import config
from medkd.commands.flags import build_parser
from medkd.config import StudentConfig
from medkd.records import PATIENT_RECORD
from medkd.stages.prepare import stream_splits, write_tokens
from medkd.store import layout, manifests, tables
from medkd.store.files import open_store
from medkd.store.manifests import Manifest
from medkd.student.card import CARD_FILE, unscored
from tests.quality.written_run import write_run
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


def test_a_chat_student_is_scored_in_windows_held_to_the_schema_and_beside_itself_with_examples(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Weights that nobody trained: what is checked is that every caller asks as the template has it, and what they say of it."""
    run = open_store(str(tmp_path / "run"))
    write_run(run, num_samples=60, topics=["asthma", "gout"], moods=["calm"], held_out=False)
    write_chat_model(tmp_path / "pretrained", chat_tokenizer("chatml"), weights=True)
    recipe = {"model_name": str(tmp_path / "pretrained"), "prompt_template": "chat", "max_length": 400, "max_answer_length": 150}
    path = tmp_path / "configs.json"
    raw = json.loads((Path(config.__file__).parent.parent / "configs" / "model_configs.json").read_text())
    path.write_text(json.dumps({**raw, "student_models": {"chatty": recipe}, "evaluate": {"constrained": True}}))
    student = StudentConfig.model_validate(recipe)
    data_set = manifests.require(run, layout.DATASET_MANIFEST, "prepare")
    splits = stream_splits(run, data_set, ("sample_id", "input", "output"))
    counts = write_tokens(run, "chatty", student, splits, PATIENT_RECORD, data_set).counts
    assert counts["test_windowed"] and not counts["test_set_aside"]
    folder = tmp_path / "run/students/chatty/model"
    shutil.copytree(tmp_path / "pretrained", folder)
    run.download("students/chatty/tokens/tokenizer", folder)
    files = tuple(manifests.entry(file.path, run.read(file.path)) for file in run.list_files("students/chatty/model"))
    manifests.write(
        run, "students/chatty/train/manifest.json", Manifest(stage="train", plan_hash="", config_hash="", files=files)
    )

    (folder / CARD_FILE).write_text(unscored("# chatty\n"))

    def evaluated(*flags: str) -> dict[str, Any]:
        shared = ["--config", str(path), "--prefix", run.url, "--student", "chatty"]
        args = build_parser().parse_args(["evaluate", *shared, *flags])
        assert args.verb(args, threading.Event()) == 0
        found: dict[str, Any] = json.loads(run.read("students/chatty/evaluate/scores.json"))
        return found

    scores = evaluated("--few-shot", "2")
    assert (scores["decoding"], scores["windowed"]["num_samples"]) == ("constrained", counts["test_windowed"])
    assert "few_shot_student" in scores["scores"]
    written = tables.decode(run.read("students/chatty/evaluate/predictions.parquet"))
    answered = [row for row in written if row["model"] == "student" and not row["truncated"]]
    assert all(row["valid_json"] for row in answered)
    said = "could write nothing but valid records"
    assert said in run.read("report/index.html").decode() and said in (folder / CARD_FILE).read_text()

    free = evaluated("--few-shot", "0", "--no-constrained")
    assert free["decoding"] == "free" and "few_shot_student" not in free["scores"]
    assert said not in (folder / CARD_FILE).read_text()
    capsys.readouterr()
