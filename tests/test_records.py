from __future__ import annotations

import copy
import json
from typing import Any

import pytest

from medkd.records import PATIENT_RECORD, RecordSchema
from medkd.schema_documents import document_of, schema_of
from tests.student.records_strategy import SCHEMAS


@pytest.mark.parametrize("schema", SCHEMAS, ids=lambda schema: schema.name)
def test_a_schema_comes_back_whole_from_its_document(schema: RecordSchema) -> None:
    assert schema_of(json.loads(json.dumps(document_of(schema)))) == schema


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        (("title",), None, "title: got None"),
        (("x-medkd", "version"), True, "x-medkd.version: got True"),
        (("properties",), {}, "top: expected type object with properties"),
        (("properties", "patient_details", "properties", "age", "type"), "integer", "patient_details.age.type: got 'integer'"),
        (("properties", "prescription", "items", "properties", "dose", "type"), "object", "prescription.items.dose.type"),
        (("properties", "prescription", "description"), 3, "prescription.description: got 3"),
    ],
)
def test_a_document_that_is_no_schema_says_where_and_what(path: tuple[str, ...], value: Any, said: str) -> None:
    document: Any = copy.deepcopy(document_of(PATIENT_RECORD))
    place = document
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    with pytest.raises(ValueError, match="record schema: ") as error:
        schema_of(document)
    assert said in str(error.value)
