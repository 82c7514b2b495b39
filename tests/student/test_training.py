"""Real training: DeepSpeed ranks over gloo, from tokens to a model folder and back to records."""

from __future__ import annotations

import csv
import json
import threading
import time
from pathlib import Path

import pytest

from medkd.commands.flags import build_parser
from medkd.errors import StoppedError
from medkd.store import manifests
from medkd.store.files import Store, open_store
from tests.student.trained import prepare_tokens, rows, tiny_student, train

# Minutes only where other work has the cores: a launch imports torch in three processes.
pytestmark = [pytest.mark.torch, pytest.mark.timeout(600)]


@pytest.mark.parametrize(
    ("family", "changes"),
    [
        ("t5", {"zero_stage": 2}),
        ("gpt2", {"zero_stage": 1, "gradient_accumulation": 2}),
        ("llama", {"zero_stage": 3}),
    ],
)
def test_a_student_of_each_family_learns_five_records_by_heart(
    family: str, changes: dict[str, int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoTokenizer

    from medkd.student.decode import Extractor

    student = tiny_student(family, too_long="set_aside", **changes)
    store = open_store(str(tmp_path / "run"))
    prepare_tokens(store, "tiny", student)
    assert train(tmp_path, "tiny", student) == 0

    manifest = manifests.require(store, "students/tiny/train/manifest.json", "train")
    assert manifests.missing_files(store, manifest, "students/tiny/model") == []
    assert store.list_files("students/tiny/checkpoints") == []
    # Stage evaluate writes the card's end.
    assert not [file.path for file in manifest.files if file.path.endswith("README.md")]
    assert store.read("students/tiny/model/README.md").decode().endswith("## Scores\n\nNot evaluated yet.\n")
    folder = tmp_path / "run/students/tiny/model"
    auto = AutoModelForSeq2SeqLM if family == "t5" else AutoModelForCausalLM
    assert auto.from_pretrained(folder).config.model_type == family
    assert AutoTokenizer.from_pretrained(folder).eos_token == "<end>"
    extractions = Extractor.load(folder).extract([row["input"] for row in rows()])
    assert [extraction.record for extraction in extractions] == [json.loads(row["output"]) for row in rows()]
    assert not any(extraction.truncated for extraction in extractions)
    bound = Extractor.load(folder, constrained=True).extract([row["input"] for row in rows()])
    assert [extraction.raw_text for extraction in bound] == [extraction.raw_text for extraction in extractions]
    _extract_from_files(tmp_path, folder)
    for line in map(json.loads, store.read("students/tiny/train/metrics.jsonl").splitlines()):
        spent = [seconds for name, seconds in line.items() if name.endswith("_seconds")]
        assert bool(spent) == ("seconds" in line)
        assert not spent or (min(spent) >= 0 and 0 < sum(spent) <= line["seconds"] + 0.1)
    assert b'part="data"' in store.read("students/tiny/train/metrics.prom")
    assert "tiny.jsonl: 5 of 7 with a record; 1 conversation too long, 1 unusable row" in capsys.readouterr().out
    _score_on_files(tmp_path, folder, capsys)


def _extract_from_files(scratch: Path, model: Path) -> None:
    """The verb on a JSON lines file and a text: a line for each conversation, in their order."""
    known = rows()
    visits = scratch / "visits"
    visits.mkdir()
    lines = [{"key": "long", "input": "é" * 2000}, *({"key": row["sample_id"], "input": row["input"]} for row in known[:4])]
    (visits / "a.jsonl").write_text("".join(json.dumps(line) + "\n" for line in [*lines, {"key": "empty", "input": ""}]))
    (visits / "b.txt").write_text(known[4]["input"])
    output = scratch / "out" / "tiny.jsonl"
    flags = ["--conversation-column", "input", "--id-column", "key", "--batch-size", "2", "--usd-per-hour", "1"]
    args = build_parser().parse_args(["extract", "--model", str(model), "--input", str(visits), "--output", str(output), *flags])
    assert args.verb(args, threading.Event()) == 0
    found = [json.loads(line) for line in output.read_text().splitlines()]
    ids = ["long", *(row["sample_id"] for row in known[:4]), "empty", str(visits / "b.txt")]
    assert [line["source_id"] for line in found] == ids
    assert [line.get("problem") for line in found] == ["conversation_too_long", None, None, None, None, "unusable_row", None]
    assert [line["record"] for line in found if line["record"]] == [json.loads(row["output"]) for row in known]
    stop = threading.Event()
    stop.set()
    with pytest.raises(StoppedError, match="no output was written"):
        args.verb(
            build_parser().parse_args(
                ["extract", "--model", str(model), "--input", str(visits), "--output", f"{output}2", *flags]
            ),
            stop,
        )
    assert [path.name for path in output.parent.iterdir()] == ["tiny.jsonl"]


def _score_on_files(scratch: Path, model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Conversations from elsewhere: what it knows by heart is right, and what nobody taught it is missing."""
    known = rows()
    changed = json.loads(known[4]["output"])
    changed["patient_details"]["occupation"] = "baker"
    gold = [*(row["output"] for row in known[:4]), json.dumps(changed), ""]
    with (scratch / "clinic.csv").open("w", newline="") as file:
        cells = zip([*(row["input"] for row in known), "no record"], gold, strict=True)
        csv.writer(file).writerows([("text", "truth"), *cells])
    flags = ["--conversation-column", "text", "--model", str(model), "--output", str(scratch / "scored")]
    args = build_parser().parse_args(["evaluate", "--conversations", str(scratch / "*.csv"), "--gold", "truth", *flags])
    assert args.verb(args, threading.Event()) == 0
    scores = json.loads((scratch / "scored" / "scores.json").read_text())
    assert (scores["set"], scores["reference"], scores["num_samples"]) == ("conversations", "human", 5)
    assert scores["counts"]["left_out"] == {"no_gold": 1}
    found = scores["scores"]["student"]
    assert (found["micro"]["precision"], found["hallucinated"], found["omitted"], found["exact_match"]) == (1.0, 0, 1, 0.8)
    assert "against records written by people, 5 conversations" in capsys.readouterr().out


def test_a_launcher_told_to_stop_saves_and_says_that_it_can_go_on(tmp_path: Path) -> None:
    student = tiny_student("t5", num_epochs=2000, checkpoint_every_steps=5, best_by="last")
    store = open_store(str(tmp_path / "run"))
    prepare_tokens(store, "tiny", student)
    stop = threading.Event()
    told = threading.Thread(target=lambda: (_wait_for_a_checkpoint(store), stop.set()))
    told.start()
    assert train(tmp_path, "tiny", student, stop=stop) == 75
    told.join()
    assert store.exists("students/tiny/checkpoints/LATEST")
    assert b'"stopped"' in store.read("students/tiny/train/progress.json")


def _wait_for_a_checkpoint(store: Store) -> None:
    deadline = time.monotonic() + 400
    while not store.exists("students/tiny/checkpoints/LATEST") and time.monotonic() < deadline:
        time.sleep(0.05)
