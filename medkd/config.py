"""`configs/model_configs.json` as strict, frozen values: the only place where a model, price, limit or batch size is written.

Unknown and wrong keys are one `ConfigError` that names the key, what was got and what is allowed. Keys and tokens never
enter these objects: `api_key_env` names where a secret is found, commands read it.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from medkd.errors import ConfigError
from medkd.samples import canonical_json, sha256_hex

Positive = Annotated[int, Field(gt=0)]
Dollars = Annotated[float, Field(ge=0, allow_inf_nan=False)]


def _whole_numbers(value: Any) -> Any:
    """The same JSON with 1.0 as 1: one number, written in two ways, may not make two plans."""
    if isinstance(value, dict):
        return {key: _whole_numbers(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_whole_numbers(item) for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() and abs(value) < 2**53 else value


JsonObject = Annotated[dict[str, Any], AfterValidator(_whole_numbers)]
ReplyLimitField = Literal["max_tokens", "max_completion_tokens"]
StructuredOutput = Literal["json_schema", "json_object", "output_config", "tool", "none"]
_OUTPUTS_OF = {"openai": ("json_schema", "json_object", "none"), "anthropic": ("output_config", "tool", "none")}
_HEADER_VALUE = re.compile(r"[\x20-\x7e]+")
# What the client sets itself, and what would carry a key past the secret.
_RESERVED_HEADERS = ("authorization", "x-api-key", "cookie", "content-type", "content-length", "transfer-encoding", "host")


class _Strict(BaseModel):
    # `model_name` is the seed's key, so pydantic's own "model_" namespace must not claim it.
    model_config = ConfigDict(
        extra="forbid", frozen=True, protected_namespaces=(), use_attribute_docstrings=True, allow_inf_nan=False
    )


class Prices(_Strict):
    """US dollars per million tokens."""

    input: Dollars = 0.0
    output: Dollars = 0.0
    cached_input: Dollars | None = None
    """Input tokens read from the provider's cache; null: as `input`."""
    cache_write: Dollars | None = None
    """Input tokens written to the provider's cache; null: as `input`."""
    peak_multiplier: float = Field(default=1.0, ge=1)
    """All prices times this during `peak_hours_utc`."""
    peak_hours_utc: tuple[Annotated[int, Field(ge=0, le=23)], ...] = ()
    """Hours of the day (0-23, UTC) at the peak price."""
    batch_multiplier: float = Field(default=0.5, gt=0, le=1)
    """All prices times this in `mode: batch`."""

    def in_batches(self) -> Prices:
        """The prices of the same tokens in a batch."""
        each = {name: getattr(self, name) for name in ("input", "output", "cached_input", "cache_write")}
        cheaper = {name: price * self.batch_multiplier for name, price in each.items() if price is not None}
        return self.model_copy(update={**cheaper, "batch_multiplier": 1.0})

    @property
    def free(self) -> bool:
        """Whether nothing this teacher does costs money, so that no budget is needed."""
        return self.input == 0 and self.output == 0


class Limits(_Strict):
    """What the provider allows one API key, all pods together."""

    requests_per_minute: Positive | None = None
    tokens_per_minute: Positive | None = None
    """Prompts and replies together; for `anthropic` of prompts alone."""
    output_tokens_per_minute: Positive | None = None
    """Of replies, where the provider counts them apart."""
    batch_size: Annotated[int, Field(ge=1, le=2000)] = 1000
    """Requests of one batch at most, in `mode: batch`."""
    batch_poll_seconds: float = Field(default=30.0, gt=0, le=600)
    """Time between two looks at a batch."""
    max_concurrency: Positive = 32
    """Calls in flight at most; each shard takes this divided by the shards that run at once."""


class ModelTraits(_Strict):
    """What one model, or all whose names begin alike, takes and costs; null, or written at the teacher: as the teacher says."""

    reply_limit_field: ReplyLimitField | None = None
    structured_output: StructuredOutput | None = None
    takes_temperature: bool | None = None
    """False: the temperature is never sent, for models that refuse it."""
    takes_seed: bool | None = None
    thinking: JsonObject = Field(default_factory=dict)
    """Fields added to each request that say how much to think, for example `{"thinking": {"type": "disabled"}}`."""
    prices: Prices | None = None


class TeacherConfig(_Strict):
    """One teacher: how to speak to it, what it takes, what it allows and what it costs."""

    protocol: Literal["openai", "anthropic"]
    """`openai`: chat completions; `anthropic`: messages."""
    base_url: str = Field(pattern=r"^https?://")
    """Up to and without `/chat/completions` or `/messages`."""
    model: str = Field(min_length=1)
    api_key_env: str | None = None
    """Environment variable that holds the key, or the file name of the key in the mounted Secret; null: no key."""
    auth: Literal["bearer", "x-api-key", "none"] = "bearer"
    protocol_version: str | None = None
    """Sent as `anthropic-version`."""
    mode: Literal["call", "batch"] = "call"
    """`batch`: by the provider's batch API, at half the price and within 24 hours; `call`: each request by itself, at once."""
    models: dict[str, ModelTraits] = Field(default_factory=dict)
    """Traits by model; a name ending in `*` covers all that begin like it. All that fit `model` count, closer ones more."""
    reply_limit_field: ReplyLimitField = "max_tokens"
    structured_output: StructuredOutput = "json_object"
    """How the extraction asks for JSON; `none`: by the prompt alone."""
    temperature: float | None = Field(default=None, ge=0, le=2)
    """Of conversations; extractions use 0. Null: not sent, for models that refuse it."""
    takes_seed: bool = False
    extra_body: JsonObject = Field(default_factory=dict)
    """Fields added to each request as they are, for example `{"service_tier": "flex"}`."""
    extra_headers: dict[str, str] = Field(default_factory=dict)
    """Headers added to each request, for example a gateway's tags; never a key."""
    cost_header: str | None = None
    """Header of a gateway's replies with the price of the call in US dollars; it then counts, not `prices`."""
    min_tokens_per_word: float = Field(default=0.7, ge=0, le=2)
    """A reply whose usage counts fewer prompt tokens per word sent is rejected: the server cut the prompt. 0: not checked."""
    max_conversation_tokens: Positive = 3000
    """Reply limit of the call that writes a conversation."""
    max_record_tokens: Positive = 1500
    """Reply limit of the call that extracts the record."""
    call_deadline_seconds: Positive = 600
    """Wall clock of one call from connect to the last byte."""
    output_terms: Literal["open", "restricted"] = "open"
    """`restricted`: the provider's terms limit training models on its output."""
    terms_acknowledged: bool = False
    """Must be true to use a `restricted` teacher: you have read its terms and may train on its output."""
    phi_agreement: bool = False
    """Must be true to send it conversations that contain patient data: your agreement with whoever runs it covers them."""
    min_gold_f1: float = Field(default=0.7, ge=0, le=1)
    """A priced run is held after its pilot where the teacher's records agree less with the gold of its conversations (micro-F1
    of fields). Without gold nothing is compared; 0: never held for it."""
    limits: Limits = Limits()
    prices: Prices = Prices()

    @model_validator(mode="after")
    def _consistent(self) -> TeacherConfig:
        if self.auth != "none" and self.api_key_env is None:
            raise ValueError('api_key_env: got null, expected a variable name; or set auth to "none"')
        # What stands in these two by mistake may be a secret, so it is not shown.
        if self.api_key_env is not None and not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", self.api_key_env):
            raise ValueError("api_key_env: got something else than a variable name; put the key itself into that variable")
        if "@" in self.base_url:
            raise ValueError("base_url: got a URL with a user or password in it, expected none; api_key_env names the key")
        for place, output in (("", self.structured_output), *self._outputs_by_model()):
            if output not in _OUTPUTS_OF[self.protocol]:
                allowed = ", ".join(_OUTPUTS_OF[self.protocol])
                raise ValueError(f"{place}structured_output: got {output!r}, allowed for {self.protocol}: {allowed}")
        if self.protocol == "anthropic" and self.temperature is not None and self.temperature > 1:
            raise ValueError(f"temperature: got {self.temperature:g}, expected 0 to 1 for anthropic")
        for name in self.models:
            if not name or "*" in name[:-1]:
                raise ValueError(f"models: got {name!r}, expected a model's name, or the beginning of names and one * at the end")
        priced = any(traits.prices is not None for traits in self.models.values())
        if priced and "prices" not in self.model_fields_set and all(traits.prices is None for traits in self._fitting()):
            raise ValueError(f"models: no entry has prices for {self.model!r}, expected one; add it, or the teacher's own prices")
        for name, value in self.extra_headers.items():
            # The value may be a secret put here by mistake, so it is not shown.
            if (
                name.lower() in _RESERVED_HEADERS
                or not re.fullmatch(r"[A-Za-z0-9-]+", name)
                or not _HEADER_VALUE.fullmatch(value)
            ):
                raise ValueError(
                    f"extra_headers: got {name!r}, expected a header of printable text that the client does not set itself; "
                    "api_key_env names the key"
                )
        return self

    def _outputs_by_model(self) -> Iterator[tuple[str, str]]:
        for name, traits in self.models.items():
            if traits.structured_output is not None:
                yield f"models.{name}.", traits.structured_output

    def with_traits(self) -> TeacherConfig:
        """The same teacher with the traits of its model in place and no table left: what the client and the plan read."""
        # What is written at the teacher itself was written for the model it names, so it wins over the table.
        open_to_table = {"reply_limit_field", "structured_output", "takes_seed", "prices"} - self.model_fields_set
        found: dict[str, Any] = {"models": {}}
        thinking: dict[str, Any] = {}
        for traits in self._fitting():
            found |= {name: getattr(traits, name) for name in open_to_table if getattr(traits, name) is not None}
            thinking |= traits.thinking
            if traits.takes_temperature is not None:
                found["temperature"] = self.temperature if traits.takes_temperature else None
        if self.mode == "batch":
            found["prices"] = found.get("prices", self.prices).in_batches()
        return self.model_copy(update={**found, "extra_body": {**thinking, **self.extra_body}})

    def _fitting(self) -> list[ModelTraits]:
        """The entries of the table for this model, those for more models first."""
        fits = [name for name in self.models if name == self.model or (name[-1] == "*" and self.model.startswith(name[:-1]))]
        return [self.models[name] for name in sorted(fits, key=lambda name: (name == self.model, len(name)))]


class Architecture(_Strict):
    """A student built from these sizes with random weights instead of downloaded ones."""

    family: Literal["t5", "gpt2", "llama"]
    layers: Positive
    """Layers of the decoder, and of the encoder where there is one."""
    width: Positive
    heads: Positive
    feed_forward: Positive
    vocabulary: Positive = 8000
    """Entries of the tokenizer trained on the data set's train split, at most."""

    @model_validator(mode="after")
    def _whole_heads(self) -> Architecture:
        if self.width % self.heads:
            raise ValueError(f"width: got {self.width}, expected a multiple of heads = {self.heads}")
        return self


class LoraConfig(_Strict):
    """Small matrices trained beside frozen weights, for students whose optimizer states do not fit."""

    rank: Positive = 16
    alpha: Positive = 32
    """What the matrices add is multiplied by alpha / rank."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    target_modules: Annotated[tuple[str, ...], Field(min_length=1)] | None = None
    """Names of the layers; null: all linear layers of the blocks of T5, GPT-2 and Llama."""


class StudentConfig(_Strict):
    """One student and its training recipe. The first four keys are all that a custom student needs."""

    HOW_NOT_WHAT: ClassVar[set[str]] = {
        "zero_stage",
        "offload_optimizer",
        "offload_parameters",
        "gradient_checkpointing",
        "liger_kernels",
        "checkpoint_every_steps",
        "keep_checkpoints",
    }
    """Keys that may change while a training goes on: they say how it is done, not what comes out."""

    model_name: str = Field(min_length=1)
    """Hub id, local path or store URI of a Hugging Face model; with `architecture`, only a name."""
    max_length: Positive = 512
    """Tokens of one conversation (T5: of the input; others: input and answer together)."""
    batch_size: Positive = 8
    """Conversations per device and step, on average: a pass takes documents up to `tokens_per_pass`."""
    tokens_per_pass: Positive | None = None
    """Tokens that a device takes through the model at once, documents laid end to end (T5: input and answer); null: `batch_size`
    documents of the data set's mean length. Never less than its longest document."""
    learning_rate: float = Field(default=5e-5, gt=0, allow_inf_nan=False)
    architecture: Architecture | None = None
    revision: str = "main"
    """Pinned commit of a hub model."""
    prompt_template: Literal["plain", "chat"] = "plain"
    """`plain`: the conversation, then a separator where a model goes on writing after it. `chat`: the conversation as the user's
    turn of the tokenizer's own chat template, the record as the assistant's; for models that were trained to chat."""
    max_answer_length: Positive = 512
    """Tokens of the record (T5: of the target; others: generated at most)."""
    num_epochs: Positive = 3
    max_steps: Positive | None = None
    """Optimizer steps at most; null: only `num_epochs` counts."""
    gradient_accumulation: Positive = 1
    weight_decay: float = Field(default=0.01, ge=0)
    warmup_ratio: float = Field(default=0.03, ge=0, le=1)
    """Share of training during which the learning rate rises."""
    schedule: Literal["linear", "cosine", "constant"] = "linear"
    """Of the learning rate after the warm-up: down to a tenth in a line or half a cosine wave, or as it is."""
    max_gradient_norm: float = Field(default=1.0, gt=0)
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """`auto`: bf16 on devices that have it, else fp32."""
    zero_stage: Literal[0, 1, 2, 3] = 2
    """What DeepSpeed ZeRO shards: 1 optimizer, 2 and gradients, 3 and parameters."""
    offload_optimizer: bool = False
    """Optimizer state and step on the CPU; with `zero_stage` 1 to 3."""
    offload_parameters: bool = False
    """Weights in the machine's memory, fetched layer by layer; with `zero_stage` 3."""
    gradient_checkpointing: bool = False
    lora: LoraConfig | None = None
    """Train adapters alone (package peft), added to the weights at the end; null: all weights."""
    liger_kernels: bool = False
    """Llama's norms, rotation and feed-forward as Triton kernels (package liger-kernel, GPUs alone)."""
    checkpoint_every_steps: Positive = 200
    keep_checkpoints: Positive = 2
    best_by: Literal["field_f1", "loss", "last"] = "field_f1"
    """Which epoch's weights become the student: by the field F1 of its answers to `validation_samples` conversations of the
    validation split, by the loss on that split, or the last."""
    validation_samples: int = Field(default=32, ge=0)
    """Conversations that the student answers after each epoch; 0: `best_by` is then the loss."""
    too_long: Literal["windows", "set_aside"] = "windows"
    """What happens to a conversation longer than `max_length` leaves room for: `windows` reads it in parts of whole turns and
    merges their records; `set_aside` leaves it out of training, counts it and scores it as an abstention."""
    window_overlap: int = Field(default=4, ge=0)
    """Turns at the end of a window that the next one begins with: a dose is often said some turns after its drug."""

    @model_validator(mode="after")
    def _template_of_its_own(self) -> StudentConfig:
        if self.prompt_template == "chat" and self.architecture:
            raise ValueError("prompt_template: got chat with architecture, expected plain: a new tokenizer has no chat template")
        return self

    @model_validator(mode="after")
    def _sharded_as_offloaded(self) -> StudentConfig:
        if self.offload_optimizer and self.zero_stage == 0:
            raise ValueError("zero_stage: got 0 with offload_optimizer, expected 1, 2 or 3")
        if self.offload_parameters and self.zero_stage != 3:
            raise ValueError(f"zero_stage: got {self.zero_stage} with offload_parameters, expected 3")
        return self


class ConversationLength(_Strict):
    """Exchanges of a conversation; an exchange is a doctor's turn and the patient's answer."""

    min_exchanges: Positive
    max_exchanges: Positive

    @model_validator(mode="after")
    def _ordered(self) -> ConversationLength:
        if self.max_exchanges < self.min_exchanges:
            raise ValueError(f"max_exchanges: got {self.max_exchanges}, expected at least min_exchanges = {self.min_exchanges}")
        return self


# One line without blanks around it: prompts carry each on a line of its own.
Word = Annotated[str, Field(pattern=r"^\S([^\r\n]*\S)?$")]
Words = Annotated[tuple[Word, ...], Field(min_length=1)]


class Judges(_Strict):
    """Who extracts accepted samples a second time, so that doubtful records show."""

    teacher: str | None = None
    """Name of another teacher; null: the run's own, at its temperature of conversations."""
    share: float = Field(default=1.0, gt=0, le=1)
    """Of the samples, which ones being a matter of the seed."""


class GenerationSettings(_Strict):
    """What the samples of a run are about."""

    conversation_topics: Words
    patient_moods: Words
    conversation_length: ConversationLength
    samples_per_topic: Positive = 10
    """Gives the total where `total_samples` is null."""
    total_samples: Positive | None = None
    held_out_topics: tuple[str, ...] = ()
    """Topics whose samples are only ever tested on."""
    ungrounded: Literal["reject", "flag"] = "reject"
    """A record with a value that its conversation does not support: `reject` has it repaired or rejected; `flag` accepts the row
    and names such values in its column `unsupported`."""

    judges: Judges | None = None
    """A second extraction of accepted samples; null: none."""
    require_agreement: float | None = Field(default=None, ge=0, le=1)
    """Share of the record's fields on which a second extraction has to agree; prepare leaves rows below it out of train and
    validation, never out of the test. Null: no row is left out, and those nobody extracted twice never are."""

    @property
    def num_samples(self) -> int:
        """Samples of a run that says no number itself."""
        return self.total_samples or self.samples_per_topic * len(self.conversation_topics)

    @model_validator(mode="after")
    def _known_topics(self) -> GenerationSettings:
        for name in ("conversation_topics", "patient_moods"):
            words = getattr(self, name)
            repeated = sorted({word for word in words if words.count(word) > 1})
            if repeated:
                raise ValueError(f"{name}: got {repeated[0]!r} twice, expected each once")
        for topic in self.held_out_topics:
            if topic not in self.conversation_topics:
                raise ValueError(f"held_out_topics: got {topic!r}, allowed: the words of conversation_topics")
        return self


class ScoreBar(_Strict):
    """A score that a student must reach with the lower end of its 95% interval."""

    score: str = Field(min_length=1)
    """`micro.f1`, `fields.prescription[].dose.recall`, `items.prescription.f1`, `exact_match`, `abstention_accuracy`, ..."""
    at_least: float = Field(ge=0, le=1)


class DataSetBars(_Strict):
    """What a data set must reach before a student is trained on it; null: no bar."""

    train_rows: Positive | None = None
    """Rows of the train split, at least."""
    rows_per_topic: Positive | None = None
    """Rows of every topic, at least."""
    share_stated: dict[str, Annotated[float, Field(ge=0, le=1)]] = Field(default_factory=dict)
    """By field (`prescription[].dose`), the share of records that say something there, at least."""
    reject_rate: float | None = Field(default=None, ge=0, le=1)
    """Share of the tries that failed a check, at most; those that a review let in passed, rows that it found wrong failed."""
    duplicate_rate: float | None = Field(default=None, ge=0, le=1)
    """Share of the accepted rows that were left out as duplicates or leaks, at most."""


class Bars(_Strict):
    """What must be reached before a data set or a student is handed on; a stage that misses a bar leaves with 79."""

    prepare: DataSetBars = DataSetBars()
    evaluate: tuple[ScoreBar, ...] = ()


class EvaluateSettings(_Strict):
    """How students are scored."""

    constrained: bool = False
    """Students may write nothing but records of their schema (package llguidance), trained or not, as `extract --constrained`
    lets them."""


class ModelConfigs(_Strict):
    """The whole file."""

    teacher_models: dict[str, TeacherConfig]
    student_models: dict[str, StudentConfig]
    generation_settings: GenerationSettings
    bars: Bars = Bars()
    evaluate: EvaluateSettings = EvaluateSettings()

    def teacher(self, name: str) -> TeacherConfig:
        """The teacher of that name with the traits of its model; ConfigError naming the known ones."""
        return self.teacher_models[_known("teacher_models", name, self.teacher_models)].with_traits()

    def student(self, name: str) -> StudentConfig:
        """The student of that name; ConfigError naming the known ones."""
        return self.student_models[_known("student_models", name, self.student_models)]


def config_hash(part: BaseModel) -> str:
    """SHA-256 of a configuration part's canonical JSON, as manifests carry it; without what does not change its results."""
    return sha256_hex(canonical_json(part.model_dump(mode="json", exclude=getattr(part, "HOW_NOT_WHAT", None))))


def load(path: str | Path | None) -> ModelConfigs:
    """Read the configuration file; None: the one that medkd ships. ConfigError with the first wrong key."""
    shown = str(path or "model_configs.json (shipped)")
    try:
        text = (_shipped() if path is None else Path(path)).read_text(encoding="utf-8-sig")
    except OSError as error:
        raise ConfigError(f"configuration {shown}: cannot be read ({error.strerror}); pass --config PATH") from None
    except UnicodeDecodeError:
        raise ConfigError(f"configuration {shown}: not UTF-8 text") from None
    return parse(text, shown)


def parse(text: str, shown: str = "configuration") -> ModelConfigs:
    """The configuration written in `text`; `shown` names its origin in errors."""
    try:
        raw = json.loads(text, object_pairs_hook=_no_repeats, parse_constant=_no_constant)
    except json.JSONDecodeError as error:
        raise ConfigError(f"{shown}: not JSON at line {error.lineno}, column {error.colno} ({error.msg})") from None
    except ValueError as error:
        raise ConfigError(f"{shown}: {error}") from None
    if not isinstance(raw, dict):
        expected = ", ".join(ModelConfigs.model_fields)
        raise ConfigError(f"{shown}: got a JSON {type(raw).__name__}, expected an object with {expected}")
    try:
        return ModelConfigs.model_validate_json(text, strict=True)
    except ValidationError as error:
        raise ConfigError(f"{shown}: {first_problem(error)}") from None


def json_schema() -> dict[str, Any]:
    """JSON Schema of the file, as shipped in `configs/model_configs.schema.json`."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **ModelConfigs.model_json_schema()}


def _shipped() -> Any:
    """The shipped file: inside an installed package, else in the checkout's `configs/`."""
    packaged = resources.files("medkd") / "model_configs.json"
    return packaged if packaged.is_file() else Path(__file__).parent.parent / "configs" / "model_configs.json"


def _no_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"key {key!r} stands twice in one object, expected once")
        found[key] = value
    return found


def _no_constant(name: str) -> None:
    raise ValueError(f"got {name}, which is no JSON, expected a finite number")


def _known(table: str, name: str, known: dict[str, Any]) -> str:
    if name in known:
        return name
    close = difflib.get_close_matches(name, known, n=1)
    hint = f"; did you mean {close[0]!r}?" if close else ""
    raise ConfigError(f"{table}: got {name!r}, known: {', '.join(sorted(known))}{hint}")


def first_problem(error: ValidationError) -> str:
    """One line for pydantic's first finding, unknown keys before missing ones: key, what was got, what is allowed."""
    problem = min(error.errors(), key=lambda found: found["type"] != "extra_forbidden")
    more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
    path = "".join(sign if sign.isprintable() else repr(sign)[1:-1] for sign in ".".join(map(str, problem["loc"])))
    if problem["type"] == "extra_forbidden":
        allowed = _keys_beside(problem["loc"])
        close = difflib.get_close_matches(str(problem["loc"][-1]), allowed, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        return f"{path}: unknown key, allowed here: {', '.join(allowed)}{hint}{more}"
    if problem["type"] == "missing":
        return f"{path}: missing, expected a value{more}"
    if problem["type"] == "value_error":
        inner = problem["msg"].removeprefix("Value error, ")
        return f"{path}.{inner}{more}" if path else f"{inner}{more}"
    got = json.dumps(problem["input"], ensure_ascii=False, default=str)
    expected = re.sub(r"^\w+ should (be )?", "", problem["msg"])
    return f"{path}: got {got[:80]}, expected: {expected}{more}"


def _keys_beside(loc: tuple[int | str, ...]) -> list[str]:
    """Names allowed where the unknown key at `loc` stands."""
    model: Any = ModelConfigs
    for part in loc[:-1]:
        if isinstance(model, type) and issubclass(model, BaseModel) and part in model.model_fields:
            model = _model_of(model.model_fields[str(part)].annotation)
    return list(model.model_fields)


def _model_of(annotation: Any) -> Any:
    """The configuration model inside `X`, `X | None` or `dict[str, X]`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    inner = [_model_of(argument) for argument in getattr(annotation, "__args__", ())]
    return next((model for model in inner if model is not None), None)
