"""Writes what stands in two places: the chart's copy of model_configs.json, its values.schema.json, the table of values in its
README.md, and the cluster's PrometheusRule.

    python -m charts.write_files

`charts/medkd/values.yaml` is the only source of the schema and the table: a default says the type, `# --` lines describe the
value, a `# @schema {...}` line adds what the default cannot say. The schema of overrides is the configuration's own.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from medkd.config import json_schema

ROOT = Path(__file__).parent.parent
CHART = ROOT / "charts" / "medkd"
MONITORING = ROOT / "k8s" / "monitoring"
TABLE_START, TABLE_END = "<!-- values: written by make chart-files -->", "<!-- end of values -->"

QUANTITY = {"type": ["string", "integer"], "pattern": r"^[0-9]+(\.[0-9]+)?(m|k|M|G|T|P|Ki|Mi|Gi|Ti|Pi)?$"}
KUEUE_STAGE = {
    "type": "object",
    "additionalProperties": False,
    "properties": {
        "queueName": {"type": "string"},
        "priorityClass": {"type": "string"},
        "maxExecSeconds": {"type": "integer", "minimum": 1},
        "requiredTopology": {"type": "string"},
        "preferredTopology": {"type": "string"},
    },
}
STAGES = ("plan", "generate", "prepare", "train", "evaluate")


@dataclass(frozen=True, kw_only=True)
class Value:
    """One value of the chart, or a group of them (`children`)."""

    path: str
    default: Any
    description: str
    extra: dict[str, Any]
    children: tuple[Value, ...]

    @property
    def name(self) -> str:
        return self.path.rpartition(".")[2]


def read_values(text: str) -> tuple[Value, ...]:
    """The chart's values with their comments; ValueError naming one that lacks a description."""
    node = yaml.compose(text)
    assert isinstance(node, yaml.MappingNode)
    return tuple(_values(node, text.splitlines(), ""))


def _values(mapping: yaml.MappingNode, lines: list[str], parent: str) -> Iterator[Value]:
    for key, node in mapping.value:
        path = f"{parent}{key.value}"
        description, extra = _comments(lines, key.start_mark.line)
        is_group = isinstance(node, yaml.MappingNode) and node.value and not description
        if not is_group and not description:
            raise ValueError(f"values.yaml:{key.start_mark.line + 1}: {path} has no `# --` description")
        children = tuple(_values(node, lines, f"{path}.")) if is_group else ()
        default = yaml.safe_load(yaml.serialize(node))
        yield Value(path=path, default=default, description=description, extra=extra, children=children)


def _comments(lines: list[str], line: int) -> tuple[str, dict[str, Any]]:
    """Description and schema in the comment lines right above a line."""
    first = line
    while lines[first - 1].lstrip().startswith("#"):
        first -= 1
    words: list[str] = []
    extra: dict[str, Any] = {}
    for comment in (text.lstrip().removeprefix("#").strip() for text in lines[first:line]):
        if comment.startswith("@schema "):
            extra = json.loads(comment.removeprefix("@schema "))
        elif comment.startswith("-- ") or words:
            words.append(comment.removeprefix("-- "))
    return " ".join(words), extra


def values_schema(values: tuple[Value, ...]) -> dict[str, Any]:
    """JSON Schema (draft 7, which Helm 3 and 4 both know) of the chart's values, closed against unknown keys."""
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        **_group_schema(values, {"global": {"type": "object", "description": "Helm's, for charts that contain this one."}}),
        "definitions": {
            "quantity": QUANTITY,
            "resources": _resources_schema(),
            "kueueStages": {"type": "object", "additionalProperties": False, "properties": dict.fromkeys(STAGES, KUEUE_STAGE)},
            **_override_schemas(),
        },
    }


def _group_schema(values: tuple[Value, ...], more: dict[str, Any] | None = None) -> dict[str, Any]:
    properties = {value.name: _schema(value) for value in values}
    return {"type": "object", "additionalProperties": False, "properties": {**properties, **(more or {})}}


def _schema(value: Value) -> dict[str, Any]:
    if value.children:
        return _group_schema(value.children)
    if "$ref" in value.extra:
        return value.extra
    types = {str: "string", bool: "boolean", int: "integer", float: "number", list: "array", dict: "object"}
    inferred = {} if value.default is None else {"type": types[type(value.default)]}
    return {"description": value.description, **inferred, **value.extra}


def _resources_schema() -> dict[str, Any]:
    amounts = {"type": "object", "additionalProperties": {"$ref": "#/definitions/quantity"}}
    claims = {"type": "array", "items": {"type": "object", "required": ["name"]}}
    return {
        "type": "object",
        "additionalProperties": False,
        "properties": {"requests": amounts, "limits": amounts, "claims": claims},
    }


def _override_schemas() -> dict[str, Any]:
    """The configuration's own schema for parts of it: nothing is required, everything else holds."""
    whole = json_schema()
    parts = {**whole.pop("$defs"), "modelOverrides": whole}
    named: dict[str, Any] = json.loads(json.dumps({name: _partial(part) for name, part in parts.items()}))
    return named


def _partial(part: Any) -> Any:
    if isinstance(part, list):
        return [_partial(item) for item in part]
    if not isinstance(part, dict):
        return part
    dropped = {"required", "default", "title", "description", "$schema"}
    kept = {
        # The names of properties are no words of the schema.
        key: {name: _partial(schema) for name, schema in item.items()} if key == "properties" else _partial(item)
        for key, item in part.items()
        if key not in dropped
    }
    if "$ref" in kept:
        kept["$ref"] = kept["$ref"].replace("#/$defs/", "#/definitions/")
    return kept


def values_table(values: tuple[Value, ...]) -> str:
    """A Markdown table of all values."""
    rows = ["| value | default | meaning |", "| --- | --- | --- |"]
    for value in _leaves(values):
        default = json.dumps(value.default, ensure_ascii=False)
        shown = f"`{default}`" if len(default) <= 60 else "see values.yaml"
        rows.append(f"| `{value.path}` | {shown} | {value.description.replace('|', chr(92) + '|')} |")
    return "\n".join(rows)


def _leaves(values: tuple[Value, ...]) -> Iterator[Value]:
    for value in values:
        if value.children:
            yield from _leaves(value.children)
        else:
            yield value


def cluster_rule(alerts: str) -> str:
    """The PrometheusRule for all runs of a cluster."""
    indented = "".join(f"  {line}\n" if line.strip() else "\n" for line in alerts.splitlines())
    return (
        "apiVersion: monitoring.coreos.com/v1\nkind: PrometheusRule\nmetadata:\n  name: medkd\n"
        f"  labels: {{app.kubernetes.io/part-of: medkd}}\nspec:\n{indented}"
    )


def rendered_files() -> dict[Path, str]:
    """Each file this program writes, with the text it should have."""
    values = read_values((CHART / "values.yaml").read_text(encoding="utf-8"))
    readme = (CHART / "README.md").read_text(encoding="utf-8")
    before, _, rest = readme.partition(TABLE_START)
    after = rest.partition(TABLE_END)[2]
    return {
        CHART / "files" / "model_configs.json": (ROOT / "configs" / "model_configs.json").read_text(encoding="utf-8"),
        MONITORING / "prometheus-rule.yaml": cluster_rule((CHART / "files" / "alerts.yaml").read_text(encoding="utf-8")),
        CHART / "values.schema.json": json.dumps(values_schema(values), indent=2, ensure_ascii=False) + "\n",
        CHART / "README.md": f"{before}{TABLE_START}\n{values_table(values)}\n{TABLE_END}{after}",
    }


if __name__ == "__main__":
    for path, text in rendered_files().items():
        path.write_text(text, encoding="utf-8")
