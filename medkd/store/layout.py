"""Where everything lies under a run prefix. The only place that spells these paths."""

from __future__ import annotations

PLAN = "plan.json"
LAYOUT = "layout.json"
OWNER = "owner.json"
CONTROL = "control.json"
BUDGET = "budget"
PREFLIGHT = "preflight"
GENERATE = "generate"
GAPS = f"{GENERATE}/gaps.json"
DATASET = "dataset"
REPORT = "report/index.html"
LOGS = "logs"
FEW_SHOT = "few-shot"
REVIEW = "review"
REVIEW_OUTCOME = f"{REVIEW}/outcome.jsonl"
REVIEW_GOLD = f"{REVIEW}/gold.jsonl"
REVIEW_FIGURES = f"{REVIEW}/figures.json"
REVIEW_MANIFEST = f"{REVIEW}/manifest.json"
PLAN_MANIFEST = "plan-manifest.json"
DATASET_MANIFEST = f"{DATASET}/manifest.json"
PARTS = (
    PLAN,
    PLAN_MANIFEST,
    "layout.json",
    OWNER,
    CONTROL,
    BUDGET,
    GENERATE,
    DATASET,
    "students",
    "weights",
    "report",
    LOGS,
    FEW_SHOT,
    REVIEW,
)
"""What a run writes right below its prefix."""
DATASET_BARS = f"{DATASET}/bars.json"
EVALUATION_FILE = "evaluation.json"
SPLITS = ("train", "validation", "test")


def budget_chunk(number: int) -> str:
    return f"{BUDGET}/{number:06d}.json"


def chunk_number(path: str) -> int | None:
    """The number of a budget chunk; None for any other path."""
    name = path.removeprefix(f"{BUDGET}/").removesuffix(".json")
    return int(name) if path == f"{BUDGET}/{name}.json" and name.isdecimal() else None


def budget_return(shard: int, taken: bool = False) -> str:
    """What a closed shard gives back, and the claim of whoever takes it."""
    return f"{BUDGET}/return-{shard:05d}{'.taken' if taken else ''}.json"


def booking(name: str) -> str:
    """What one call outside any shard cost."""
    return f"{PREFLIGHT}/{name}.json"


def few_shot_reply(key: str) -> str:
    """A teacher's reply to a question with examples, kept for the next evaluation."""
    return f"{FEW_SHOT}/{key}.json"


def review_sample(name: str) -> str:
    """The rows that one review asks people about, as they are shown."""
    return f"{REVIEW}/{name}/sample.jsonl"


def review_sample_manifest(name: str) -> str:
    return f"{REVIEW}/{name}/manifest.json"


def review_filled(name: str, number: int) -> str:
    """What people said of these rows: the imports one by one, a later one counts where it says something else."""
    return f"{REVIEW}/{name}/filled/{number:06d}.jsonl"


def shard_folder(shard: int) -> str:
    return f"{GENERATE}/shard-{shard:05d}"


def journal_folder(shard: int) -> str:
    return f"{shard_folder(shard)}/journal"


def journal_segment(shard: int, number: int) -> str:
    return f"{journal_folder(shard)}/{number:06d}.jsonl.gz"


def shard_file(shard: int, name: str) -> str:
    """One of samples.parquet, rejected.parquet, calls.parquet, progress.json, manifest.json."""
    return f"{shard_folder(shard)}/{name}"


def dataset_part(split: str, number: int) -> str:
    return f"{DATASET}/{split}-{number:05d}.parquet"


def student_folder(student: str) -> str:
    """Holds tokens/, checkpoints/, model/ and evaluate/ of one student."""
    return f"students/{student}"


def student_evaluation(student: str) -> str:
    """Scores and verdict, in the model's folder so that they go where the model goes."""
    return f"{student_folder(student)}/model/{EVALUATION_FILE}"


def weights_folder(model: str, revision: str) -> str:
    return f"weights/{model}@{revision}"
