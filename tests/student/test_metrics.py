"""What training writes down while it runs, as lines and as Prometheus' text."""

from __future__ import annotations

import json
import re
import struct

from medkd.store.files import open_store
from medkd.student.event_files import NAME
from medkd.student.metrics import Metrics, prometheus_text

SAMPLE = re.compile(r'medkd_student_\w+\{student="tiny"(,part="\w+")?\} -?[0-9.e+-]+')


def test_the_newest_numbers_stand_as_gauges_beside_the_lines() -> None:
    store = open_store("memory://metrics")
    metrics = Metrics(store, "students/tiny/train", student_name="tiny", resumed_step=0, total_steps=40)
    metrics.add(step=10, epoch=1, loss=2.5, learning_rate=1e-4, tokens_per_second=900.0, seconds=1.0, data_seconds=0.25)
    metrics.add(step=10, epoch=1, validation_loss=2.25)
    metrics.add(step=20, epoch=1, loss=1.5, learning_rate=9e-5, tokens_per_second=950.0, seconds=1.0, data_seconds=0.125)
    metrics.write("stopped")
    text = store.read("students/tiny/train/metrics.prom").decode()
    samples = [line for line in text.splitlines() if not line.startswith("#")]
    assert all(SAMPLE.fullmatch(line) for line in samples), text
    found = {line.rpartition(" ")[0].removeprefix("medkd_student_"): float(line.rpartition(" ")[2]) for line in samples}
    of = '{student="tiny"}'
    assert found == {
        **{f"total_steps{of}": 40, f"step{of}": 20, f"loss{of}": 1.5, f"validation_loss{of}": 2.25},
        **{f"learning_rate{of}": 9e-5, f"tokens_per_second{of}": 950, f"seconds{of}": 1},
        'part_seconds{student="tiny",part="data"}': 0.125,
    }
    assert text.count("# TYPE ") == len(found) and text.endswith("\n")
    assert len(store.read("students/tiny/train/metrics.jsonl").splitlines()) == 3
    resumed = Metrics(store, "students/tiny/train", student_name="tiny", resumed_step=10, total_steps=40)
    resumed.write("training")
    assert json.loads(store.read("students/tiny/train/progress.json"))["step"] == 10
    assert "medkd_student_loss" in store.read("students/tiny/train/metrics.prom").decode()


def test_what_is_not_known_yet_has_no_gauge() -> None:
    text = prometheus_text("tiny", {"total_steps": 4, "loss": None})
    assert [line for line in text.splitlines() if not line.startswith("#")] == ['medkd_student_total_steps{student="tiny"} 4']


def events(data: bytes) -> list[tuple[int, dict[str, float]]]:
    """Steps and scalars of an event file: records of a length, its checksum, an event and its checksum."""
    from tensorboardX.proto.event_pb2 import Event

    found = []
    while data:
        (length,) = struct.unpack("<Q", data[:8])
        one = Event.FromString(data[12 : 12 + length])
        found.append((one.step, {value.tag: value.simple_value for value in one.summary.value}))
        data = data[12 + length + 4 :]
    return found[1:]  # the first says the format


def test_a_resumed_training_leaves_one_event_file_with_a_scalar_for_every_number() -> None:
    store = open_store("memory://events")
    first = Metrics(store, "t", student_name="tiny", resumed_step=0, total_steps=40)
    first.add(step=10, epoch=1, loss=2.5, seconds=1.0)
    first.add(step=20, epoch=1, loss=2.25, seconds=1.0)
    first.write("stopped")
    resumed = Metrics(store, "t", student_name="tiny", resumed_step=10, total_steps=40)
    resumed.add(step=20, epoch=1, loss=2.125, seconds=1.0)
    resumed.add(step=20, epoch=1, validation_loss=2.0)
    resumed.write("finished")
    assert [file.path for file in store.list_files("t") if "tfevents" in file.path] == [f"t/{NAME}"]
    assert events(store.read(f"t/{NAME}")) == [
        (10, {"train/epoch": 1, "train/loss": 2.5, "train/seconds": 1}),
        (20, {"train/epoch": 1, "train/loss": 2.125, "train/seconds": 1}),
        (20, {"train/epoch": 1, "validation/validation_loss": 2}),
    ]
