"""The report of a run: one HTML page that stands alone, and the data that it shows.

Every block names the files its numbers come from; a block whose stage has not run says so. Conversations are untrusted text:
everything is escaped, and the page forbids itself scripts and any request.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from typing import Any, Literal

from jinja2 import Environment, StrictUndefined, Template
from markupsafe import Markup

from medkd.quality.charts import Chart
from medkd.quality.side_by_side import FieldRow
from medkd.samples import Turn

ScoresJson = Mapping[str, Any]
"""`quality.scores.Scores` as JSON."""

MODEL_TITLES = {
    "student": "student",
    "lexicon": "lexicon baseline",
    "constant": "constant record",
    "untrained": "untrained student",
    "teacher": "teacher",
}
"""The models that are scored, in the order in which the page shows them."""
FEW_SHOT_TITLES = {
    "few_shot_student": "untrained student, few-shot",
    "few_shot_teacher": "teacher, few-shot",
}
"""Models that saw a few training rows in their prompt; they have no columns of their own, only a line."""

# Those with a dot of their own; later ones lie above earlier ones.
_DRAWN = ("untrained", "constant", "lexicon", "student")

REFERENCES = {
    "simulator": ("the simulator's gold records", "They hold for simulated conversations and say nothing about real ones."),
    "teacher": ("the teacher's records", "Agreement with the teacher is not accuracy: both may be wrong in the same way."),
    "human": ("records written by people", ""),
    "mixed": ("the best record known of each", "Some of these are people's, others the simulator's or the teacher's."),
}
"""What each kind of reference is called, and what has to be said about scores against it."""


@dataclass(frozen=True, kw_only=True)
class RunFacts:
    """Which run this is. model: what the teacher's configuration names."""

    prefix: str
    plan_hash: str
    teacher: str
    model: str
    student: str | None
    seed: int | None
    written_at: str
    source: str


@dataclass(frozen=True, kw_only=True)
class StageFigure:
    """One stage of the strip: its main figure, and a short note under it."""

    name: str
    figure: str
    note: str
    state: Literal["done", "partly", "not yet"]


@dataclass(frozen=True, kw_only=True)
class TopicRow:
    """Accepted samples of one topic by mood; missing: planned and not reached."""

    topic: str
    counts: tuple[int, ...]
    missing: tuple[int, ...]
    held_out: bool

    @property
    def total(self) -> int:
        return sum(self.counts)


@dataclass(frozen=True, kw_only=True)
class Cells:
    """Accepted samples by topic and mood, topics in the order of their totals, the smallest first."""

    moods: tuple[str, ...]
    rows: tuple[TopicRow, ...]
    source: str

    @property
    def peak(self) -> int:
        return max((count for row in self.rows for count in row.counts), default=0)


@dataclass(frozen=True, kw_only=True)
class Rejects:
    """Tries that failed a check, by reason, the most frequent first. short: samples of which every try failed."""

    by_reason: tuple[tuple[str, int], ...]
    accepted: int
    short: int
    source: str
    short_cells: tuple[str, ...] = ()
    """Topics and moods that fell short and why, in words."""

    @property
    def total(self) -> int:
        return sum(count for _, count in self.by_reason)


@dataclass(frozen=True, kw_only=True)
class CallRow:
    """The calls of one step (conversation or extraction), their tokens by kind and their price in US dollars."""

    step: str
    calls: int
    repairs: int
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    reasoning_tokens: int
    cost_usd: float


@dataclass(frozen=True, kw_only=True)
class GroupRow:
    """What the tries of one teacher, topic or mood came to. None where nothing was tried, or accepted."""

    kind: str
    name: str
    tries: int
    accepted: int
    acceptance: float | None
    cost_per_accepted_usd: float | None


@dataclass(frozen=True, kw_only=True)
class Money:
    """possibly_usd: spent on attempts whose outcome nobody saw, an upper bound."""

    rows: tuple[CallRow, ...]
    spent_usd: float
    possibly_usd: float
    accepted: int
    source: str
    groups: tuple[GroupRow, ...] = ()
    """By teacher, topic and mood, the least accepted of each kind first."""

    @property
    def per_accepted_usd(self) -> float:
        return self.spent_usd / self.accepted if self.accepted else 0.0

    @property
    def tokens_per_accepted(self) -> float:
        tokens = sum(row.prompt_tokens + row.completion_tokens for row in self.rows)
        return tokens / self.accepted if self.accepted else 0.0


@dataclass(frozen=True, kw_only=True)
class DataSet:
    """splits: rows by split. share_stated: by leaf, the share of records that say something there."""

    splits: Mapping[str, int]
    duplicates: Mapping[str, int]
    held_out_topics: tuple[str, ...]
    share_stated: Mapping[str, float]
    conversation_characters: Mapping[str, int]
    data_set_hash: str
    source: str
    agreement: Mapping[str, Any] | None = None
    """Of rows extracted twice: how many were, and how many agree in every field; None where none was."""
    disputed: int = 0
    """Rows left out because their second extraction disagreed."""
    reviewed: str = ""
    """What people made of rows, in words; empty where they looked at none."""


@dataclass(frozen=True, kw_only=True)
class Reviews:
    """found: figures (`quality.review_figures`) by the review's identity. is_applied: whether the data set knows them; no
    data set: None."""

    found: Mapping[str, Mapping[str, Any]]
    is_applied: bool | None
    source: str


@dataclass(frozen=True, kw_only=True)
class Training:
    """seconds: None where the metrics do not say how long it took."""

    chart: Chart
    steps: int
    seconds: float | None
    source: str


@dataclass(frozen=True, kw_only=True)
class Apart:
    """The student's micro-F1 on a set of conversations of its own, with its interval."""

    title: str
    reference: str
    num_samples: int
    f1: float
    low: float
    high: float
    model: str = "student"


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Scores by model on the topics of training; held_out: the same on topics that training never saw, None without any."""

    reference: str
    num_samples: int
    models: Mapping[str, ScoresJson]
    held_out: Mapping[str, ScoresJson] | None
    num_held_out: int
    source: str
    intervals: Mapping[str, Mapping[str, float]]
    """Of each model's micro-F1: `low` and `high` of the middle 95%, resampled by conversation."""
    apart: tuple[Apart, ...]
    """The student on conversations that are not counted elsewhere, or only among the others."""
    beside_teacher: Mapping[str, float] | None
    topics: Sequence[Mapping[str, Any]]
    mistakes: Sequence[Mapping[str, Any]]
    calibration: Mapping[str, Any] | None
    verdict: str
    """On the student's bars, in words; empty where nothing says one."""
    decoding: str = ""
    """How students wrote their answers, in a sentence; empty where they wrote what they liked."""


@dataclass(frozen=True, kw_only=True)
class Example:
    """One test conversation with its reference record and the student's.

    invalid_text: what the student wrote where that is no valid record, else None.
    """

    label: str
    sample_id: str
    topic: str
    mood: str
    f1: float
    invalid_text: str | None
    turns: tuple[Turn, ...]
    rows: tuple[FieldRow, ...]


@dataclass(frozen=True, kw_only=True)
class Examples:
    examples: tuple[Example, ...]
    source: str


@dataclass(frozen=True, kw_only=True)
class ReportData:
    """All that the page shows. A part is None while its stage has not run; without reviews the page does not speak of them."""

    run: RunFacts
    stages: tuple[StageFigure, ...]
    cells: Cells | None
    rejects: Rejects | None
    money: Money | None
    data_set: DataSet | None
    reviews: Reviews | None
    training: Training | None
    evaluation: Evaluation | None
    examples: Examples | None
    gaps: tuple[str, ...]


def render(data: ReportData) -> str:
    """The page. It loads nothing: style and drawings are inside, scripts there are none."""
    return _template().render(
        **{name: getattr(data, name) for name in data.__dataclass_fields__},
        style=Markup(_part("report.css")),
        titles=MODEL_TITLES,
        drawn=_DRAWN,
        all_titles={**MODEL_TITLES, **FEW_SHOT_TITLES},
        references=REFERENCES,
    )


def group_of(path: str) -> str:
    """`medical history` of `medical_history.allergies`; items read `prescription, each`."""
    head = path.rpartition(".")[0]
    return words_of(head.removesuffix("[]")) + (", each" if head.endswith("[]") else "")


def words_of(name: str) -> str:
    """`family history` of `medical_history.family_history`."""
    return name.rpartition(".")[2].replace("_", " ")


def spelled(path: str) -> str:
    """`prescription, each: dose` of `prescription[].dose`."""
    return ": ".join(filter(None, (group_of(path), words_of(path))))


@lru_cache(maxsize=1)
def _template() -> Template:
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters.update(
        count=lambda number: f"{number:,}",
        percent=lambda share: f"{100 * share:.1f}%",
        ratio=lambda share: f"{share:.3f}",
        usd=_usd,
        span=_span,
        words=words_of,
        group=group_of,
        spelled=spelled,
    )
    return environment.from_string(_part("report.html.j2"))


def _part(name: str) -> str:
    return (resources.files("medkd.quality") / name).read_text(encoding="utf-8")


def _usd(amount: float) -> str:
    """Dollars with as many places as small amounts need."""
    if amount == 0 or amount >= 1:
        return f"${amount:,.2f}"
    return f"${amount:.6f}".rstrip("0") if amount < 0.01 else f"${amount:.4f}"


def _span(seconds: float) -> str:
    """`2 h 05 min`, `3 min 20 s` or `12 s`."""
    minutes, rest = divmod(round(seconds), 60)
    if minutes >= 60:
        return f"{minutes // 60} h {minutes % 60:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"
