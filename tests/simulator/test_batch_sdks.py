"""The public SDKs hand batches in, watch them, page through them and read what came of every request."""

from __future__ import annotations

import io
import json
import time
from collections.abc import Callable
from typing import Any

import anthropic
import openai
import pytest

from medkd.simulator.server import Server
from tests.simulator.asking import asked

Serve = Callable[..., Server]


def openai_client(server: Server, **options: Any) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{server.url}/v1", max_retries=0, **{"api_key": "secret", **options})


def anthropic_client(server: Server, **options: Any) -> anthropic.Anthropic:
    return anthropic.Anthropic(base_url=server.url, max_retries=0, **{"api_key": "secret", **options})


def openai_batch(client: openai.OpenAI, names: list[str], **metadata: str) -> Any:
    body = {"model": "clinic-1", "messages": [{"role": "user", "content": asked()}], "max_completion_tokens": 2000}
    lines = [{"custom_id": name, "method": "POST", "url": "/v1/chat/completions", "body": body} for name in names]
    text = "\n".join(json.dumps(line) for line in lines)
    file = client.files.create(file=("batch.jsonl", io.BytesIO(text.encode())), purpose="batch")
    return client.batches.create(
        input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h", metadata=metadata
    )


def anthropic_batch(client: anthropic.Anthropic, names: list[str]) -> Any:
    messages: Any = [{"role": "user", "content": asked()}]
    params: Any = {"model": "clinic-1", "max_tokens": 2000, "messages": messages}
    return client.messages.batches.create(requests=[{"custom_id": name, "params": params} for name in names])


def ended(look: Callable[[], Any], states: tuple[str, ...]) -> Any:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        batch = look()
        if (getattr(batch, "status", None) or batch.processing_status) in states:
            return batch
        time.sleep(0.05)
    raise AssertionError("the batch never ended")


def test_the_openai_sdk_hands_a_batch_in_and_reads_its_results(serve: Serve) -> None:
    server = serve(api_key="secret", batch_seconds=0.2)
    client = openai_client(server)
    made = openai_batch(client, ["a", "b", "c"], run="flu")
    assert made.status == "in_progress" and made.metadata == {"run": "flu"}
    found = ended(lambda: client.batches.retrieve(made.id), ("completed",))
    assert (found.request_counts.total, found.request_counts.completed, found.request_counts.failed) == (3, 3, 0)
    lines = [json.loads(line) for line in client.files.content(found.output_file_id).text.splitlines()]
    assert {line["custom_id"] for line in lines} == {"a", "b", "c"} and found.error_file_id is None
    assert all(line["response"]["body"]["choices"][0]["message"]["content"].startswith("Doctor: ") for line in lines)
    assert client.files.delete(found.output_file_id).deleted
    assert server.counters.stats()["billed_total"] == 3
    with pytest.raises(openai.AuthenticationError):
        openai_client(server, api_key="other").batches.retrieve(made.id)


def test_the_openai_sdk_reads_errors_and_cancels(serve: Serve) -> None:
    client = openai_client(serve(batch_seconds=0.1, faults="rate_limit:1"))
    found = ended(lambda: client.batches.retrieve(openai_batch(client, ["a"]).id), ("in_progress",))
    found = ended(lambda: client.batches.retrieve(found.id), ("completed",))
    (line,) = [json.loads(line) for line in client.files.content(found.error_file_id).text.splitlines()]
    assert found.output_file_id is None and line["response"]["status_code"] == 429
    slow = openai_client(serve(batch_seconds=60.0))
    made = openai_batch(slow, ["a", "b"])
    slow.batches.cancel(made.id)
    over = ended(lambda: slow.batches.retrieve(made.id), ("cancelled",))
    assert "batch_cancelled" in slow.files.content(over.error_file_id).text
    with pytest.raises(openai.NotFoundError):
        slow.batches.retrieve("batch_unknown")


def test_the_anthropic_sdk_hands_a_batch_in_and_reads_its_results(serve: Serve) -> None:
    server = serve(api_key="secret", batch_seconds=0.2)
    client = anthropic_client(server)
    made = anthropic_batch(client, ["a", "b", "c"])
    assert made.processing_status == "in_progress" and made.request_counts.processing == 3
    found = ended(lambda: client.messages.batches.retrieve(made.id), ("ended",))
    assert found.request_counts.succeeded == 3
    results = {line.custom_id: line.result for line in client.messages.batches.results(made.id)}
    assert set(results) == {"a", "b", "c"}
    for result in results.values():
        assert result.type == "succeeded" and result.message.content[0].text.startswith("Doctor: ")
    assert server.counters.stats()["billed_total"] == 3
    assert client.messages.batches.delete(made.id).id == made.id
    with pytest.raises(anthropic.NotFoundError):
        client.messages.batches.retrieve(made.id)


def test_the_anthropic_sdk_reads_errors_and_cancels(serve: Serve) -> None:
    client = anthropic_client(serve(batch_seconds=0.1, faults="rate_limit:1"))
    made = anthropic_batch(client, ["a"])
    ended(lambda: client.messages.batches.retrieve(made.id), ("ended",))
    (line,) = client.messages.batches.results(made.id)
    assert line.result.type == "errored" and line.result.error.error.type == "rate_limit_error"
    slow = anthropic_client(serve(batch_seconds=60.0))
    other = anthropic_batch(slow, ["a"])
    slow.messages.batches.cancel(other.id)
    assert ended(lambda: slow.messages.batches.retrieve(other.id), ("ended",)).request_counts.canceled == 1
    (line,) = slow.messages.batches.results(other.id)
    assert line.result.type == "canceled"


def test_both_sdks_page_through_many_batches_newest_first(serve: Serve) -> None:
    server = serve(batch_seconds=60.0)
    ours, theirs = openai_client(server), anthropic_client(server)
    made = [openai_batch(ours, ["a"]).id for _ in range(7)]
    also = [anthropic_batch(theirs, ["a"]).id for _ in range(7)]
    page = ours.batches.list(limit=3)
    assert [batch.id for batch in page.data] == made[:3:-1] and page.has_next_page()
    assert [batch.id for batch in ours.batches.list(limit=3)] == made[::-1]
    assert [batch.id for batch in theirs.messages.batches.list(limit=3)] == also[::-1]
    assert [batch.id for batch in ours.batches.list()] == made[::-1]
    with pytest.raises(openai.BadRequestError, match="limit"):
        ours.batches.list(limit=101)
