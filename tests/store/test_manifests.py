"""What a stage says it finished, and how others check it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medkd.errors import ConfigError, InputError, MedkdError
from medkd.store import manifests
from medkd.store.files import Store, open_store
from medkd.store.manifests import Manifest, entry, missing_files, read_verified

PATH = "generate/shard-00003/manifest.json"


def manifest(store: Store, **changes: Any) -> Manifest:
    """The manifest of two files that are written here."""
    files = {"generate/shard-00003/samples.parquet": b"samples", "generate/shard-00003/empty": b""}
    for path, data in files.items():
        store.replace(path, data)
    values: dict[str, Any] = {
        "stage": "generate",
        "plan_hash": "a" * 64,
        "config_hash": "b" * 64,
        "shard": 3,
        "files": tuple(entry(path, data, rows=7) for path, data in files.items()),
        "inputs": {"plan.json": "c" * 64},
        "counts": {"accepted": 7, "rejected_by_reason": {"not_json": 1}},
        "money": {"spent_usd": 0.1},
    }
    return Manifest(**{**values, **changes})


def test_a_manifest_is_read_back_as_it_was_written(store: Store) -> None:
    written = manifest(store)
    manifests.write(store, PATH, written)
    assert manifests.read(store, PATH) == written
    assert manifests.require(store, PATH, "generate") == written


def test_a_stage_that_has_not_finished_has_no_manifest_and_is_named(store: Store) -> None:
    assert manifests.read(store, PATH) is None
    with pytest.raises(ConfigError, match="generate"):
        manifests.require(store, PATH, "generate")


def test_files_are_verified_by_content_and_named_when_they_differ(store: Store) -> None:
    samples, empty = manifest(store).files
    assert read_verified(store, samples) == b"samples"
    assert read_verified(store, empty) == b""
    store.replace(samples.path, b"SAMPLES")
    with pytest.raises(InputError, match=r"samples\.parquet: differs from its manifest"):
        read_verified(store, samples)
    store.delete(samples.path)
    with pytest.raises(InputError, match=r"samples\.parquet: named by its manifest but missing"):
        read_verified(store, samples)


def test_one_listing_tells_which_files_are_missing_or_of_another_size(store: Store) -> None:
    written = manifest(store)
    folder = "generate/shard-00003"
    assert missing_files(store, written, folder) == []
    store.replace(f"{folder}/samples.parquet", b"longer than before")
    store.delete(f"{folder}/empty")
    assert missing_files(store, written, folder) == [f"{folder}/samples.parquet", f"{folder}/empty"]
    assert missing_files(store, written, "dataset") == []


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"5", b"\xff", b'{"format": 1}', b'{"format": 1, "files": [{}]}', b'{"format": 1, "files": 5}']
)
def test_what_is_no_manifest_is_an_input_error_naming_its_path(content: bytes) -> None:
    store = open_store("memory://manifests")
    store.replace(PATH, content)
    with pytest.raises(InputError, match=f"{PATH}: (not a manifest|got format None)"):
        manifests.read(store, PATH)


def test_a_manifest_of_a_later_format_says_which_this_medkd_reads(store: Store) -> None:
    manifests.write(store, PATH, manifest(store, format=2))
    with pytest.raises(InputError, match=f"{PATH}: got format 2, this medkd reads 1"):
        manifests.read(store, PATH)


@given(st.recursive(st.none() | st.integers() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)))
@settings(max_examples=40)
def test_no_json_brings_anything_but_an_error_of_ours(value: Any) -> None:
    store = open_store("memory://manifests")
    for content in (value, {"format": 1, "files": [], "stage": value}, {"format": 1, "files": [value]}):
        store.replace(PATH, json.dumps(content).encode())
        with pytest.raises(MedkdError, match="manifest"):
            manifests.read(store, PATH)
