"""A Kubernetes API of few objects over real HTTP, with what Job, queue and node controllers do played by the test.

Enough of it to drive the real driver through the real client: Jobs by name and label, strategic merge of metadata and spec, pods
by selector, ConfigMaps, Events, conflicts and other answers on demand. Jobs are validated as far as the driver could offend.
"""

from __future__ import annotations

import copy
import itertools
import json
import re
import threading
import time
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from medkd.cluster import names

Object = dict[str, Any]
NAMESPACE = "clinic"
PATH = re.compile(
    r"^/apis?/(?:batch/)?v1/namespaces/(?P<namespace>[^/]+)/(?P<kind>[a-z]+)(?:/(?P<name>[^/]+))?(?:/(?P<sub>log|status))?$"
)
# Fields of a Job's spec that may change in its life.
MUTABLE = {"suspend", "parallelism", "backoffLimit", "maxFailedIndexes", "activeDeadlineSeconds", "ttlSecondsAfterFinished"}


def moment(at: float | None = None) -> str:
    return datetime.fromtimestamp(time.time() if at is None else at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


class RefusedRequestError(Exception):
    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class FakeApi:
    """The server and its objects; `with FakeApi() as api`. `api.url` is its address."""

    def __init__(self) -> None:
        self.objects: dict[tuple[str, str], Object] = {}
        self.logs: dict[str, str] = {}
        self.requests: list[tuple[str, str, str]] = []
        self.forbidden: set[str] = set()
        self.answers: list[tuple[str, str, int]] = []
        """Method, part of the path, and status to answer once instead."""
        self.lock = threading.RLock()
        self._uids = itertools.count(1)
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> FakeApi:
        threading.Thread(target=self._server.serve_forever, daemon=True, kwargs={"poll_interval": 0.05}).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    # --- what tests do and see ----------------------------------------------------------------------------------------

    def install(self, full_name: str, run: str, shards: int = 2, queue: str | None = None) -> None:
        """The Jobs and the status ConfigMap of a release, as the chart renders them."""
        for stage in (*names.STAGES, names.DRIVER):
            self.create("jobs", job(full_name, run, stage, shards if stage == "generate" else 1, queue))
        self.create("configmaps", {"metadata": {"name": names.status_config_map(full_name)}})

    def create(self, kind: str, body: Object) -> Object:
        with self.lock:
            name = body["metadata"]["name"]
            if (kind, name) in self.objects:
                raise RefusedRequestError(409, f"{kind} {name!r} already exists")
            made = copy.deepcopy(body)
            made["metadata"] |= {"uid": f"uid-{next(self._uids)}", "resourceVersion": "1", "creationTimestamp": moment()}
            if kind == "jobs":
                made.setdefault("status", {})
                made["spec"].setdefault("selector", {"matchLabels": {"controller-uid": made["metadata"]["uid"]}})
            self.objects[kind, name] = made
            return made

    def job(self, name: str) -> Object:
        with self.lock:
            return copy.deepcopy(self.objects["jobs", name])

    def set_status(self, name: str, **status: Any) -> None:
        """What the Job controller writes."""
        with self.lock:
            self.objects["jobs", name]["status"] |= status

    def start(self, name: str, *, ready: int | None = None) -> None:
        spec = self.job(name)["spec"]
        active = min(spec["parallelism"], spec["completions"])
        self.set_status(name, active=active, ready=active if ready is None else ready, startTime=moment())

    def complete(self, name: str) -> None:
        count = self.job(name)["spec"]["completions"]
        done = f"0-{count - 1}" if count > 1 else "0"
        condition = {"type": "Complete", "status": "True", "lastTransitionTime": moment()}
        self.set_status(name, active=0, ready=0, succeeded=count, completedIndexes=done, conditions=[condition])

    def fail(self, name: str, reason: str, message: str = "", **status: Any) -> None:
        condition = {"type": "Failed", "status": "True", "reason": reason, "message": message, "lastTransitionTime": moment()}
        self.set_status(name, active=0, ready=0, conditions=[condition], **status)

    def suspend(self, name: str, suspended: bool) -> None:
        """As a queue does when it admits a Job or takes it back."""
        with self.lock:
            self.objects["jobs", name]["spec"]["suspend"] = suspended
            if suspended:
                self.set_status(name, active=0, ready=0, startTime=None)

    def delete(self, kind: str, name: str) -> None:
        with self.lock:
            self.objects.pop((kind, name), None)

    def uninstall(self) -> None:
        with self.lock:
            self.objects.clear()

    def board(self, full_name: str) -> Object:
        """What the driver last published; {} before that."""
        with self.lock:
            data = self.objects["configmaps", names.status_config_map(full_name)].get("data") or {}
        return json.loads(data.get(names.STATUS_KEY, "{}"))

    def events(self) -> list[tuple[str, str]]:
        """Job and reason of each Event, in order of creation."""
        with self.lock:
            return [(one["involvedObject"]["name"], one["reason"]) for (kind, _), one in self.objects.items() if kind == "events"]

    def event_texts(self, reason: str) -> list[str]:
        with self.lock:
            return [one["message"] for (kind, _), one in self.objects.items() if kind == "events" and one["reason"] == reason]

    def counts(self) -> Counter[tuple[str, str]]:
        """Requests by method and kind."""
        with self.lock:
            return Counter((method, kind) for method, kind, _ in self.requests)

    # --- HTTP ---------------------------------------------------------------------------------------------------------

    def answer(self, method: str, path: str, body: Object | None) -> tuple[int, Object | str]:
        address = urlsplit(path)
        query = {key: values[0] for key, values in parse_qs(address.query).items()}
        found = PATH.match(address.path)
        if not found or found["namespace"] != NAMESPACE:
            return 404, status_of(404, "not found")
        kind, name = found["kind"], found["name"]
        with self.lock:
            self.requests.append((method, kind, name or ""))
            try:
                self._refuse(method, address.path, kind)
                return self._do(method, kind, name, found["sub"], query, body)
            except RefusedRequestError as refusal:
                return refusal.status, status_of(refusal.status, str(refusal))

    def _refuse(self, method: str, path: str, kind: str) -> None:
        if kind in self.forbidden:
            raise RefusedRequestError(403, f'{kind} is forbidden: User "driver" cannot {method.lower()} it')
        for answer in self.answers:
            if answer[0] == method and answer[1] in path:
                self.answers.remove(answer)
                raise RefusedRequestError(answer[2], "as the test asked")

    def _do(
        self, method: str, kind: str, name: str | None, sub: str | None, query: dict[str, str], body: Object | None
    ) -> tuple[int, Object | str]:
        if method == "POST":
            assert body
            return 201, self.create(kind, body)
        if name is None:
            return 200, {"kind": "List", "items": list(self._selected(kind, query))}
        if sub == "log":
            return (200, self.logs[name]) if name in self.logs else (400, status_of(400, "container is waiting to start"))
        if (kind, name) not in self.objects:
            raise RefusedRequestError(404, f'{kind} "{name}" not found')
        if method == "PATCH":
            self._patch(kind, name, body or {})
        if method == "DELETE":
            return 200, self.objects.pop((kind, name))
        return 200, self.objects[kind, name]

    def _patch(self, kind: str, name: str, body: Object) -> None:
        changed = merged(self.objects[kind, name], body)
        if kind == "jobs":
            before = self.objects[kind, name]["spec"]
            if any(changed["spec"].get(key) != before.get(key) for key in {*changed["spec"], *before} - MUTABLE):
                raise RefusedRequestError(422, f"Job {name}: field is immutable")
        self.objects[kind, name] = changed

    def _selected(self, kind: str, query: dict[str, str]) -> Iterator[Object]:
        for (of_kind, _), one in self.objects.items():
            if (
                of_kind == kind
                and matches_labels(one, query.get("labelSelector"))
                and matches_phase(one, query.get("fieldSelector"))
            ):
                yield one

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        api = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def respond(self) -> None:
                length = int(self.headers.get("Content-Length") or 0)
                body = json.loads(self.rfile.read(length)) if length else None
                status, answer = api.answer(self.command, self.path, body)
                data = answer.encode() if isinstance(answer, str) else json.dumps(answer).encode()
                self.send_response(status)
                self.send_header("Content-Type", "text/plain" if isinstance(answer, str) else "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            do_GET = do_POST = do_PATCH = do_DELETE = respond  # noqa: N815

            def log_message(self, *_: object) -> None:
                return

        return Handler


def job(full_name: str, run: str, stage: str, completions: int, queue: str | None = None) -> Object:
    labels = {names.LABEL_RUN: run, **({names.LABEL_STAGE: stage} if stage != names.DRIVER else {})}
    gated = {names.ANNOTATION_GATE: names.GATE} if stage != names.DRIVER else {}
    return {
        "metadata": {
            "name": names.job_name(full_name, stage),
            "labels": labels | ({names.LABEL_QUEUE: queue} if queue and gated else {}),
            "annotations": gated,
        },
        "spec": {
            "suspend": bool(gated),
            "completions": completions,
            "parallelism": min(completions, 4),
            "completionMode": "Indexed",
            "template": {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "main", "image": "medkd-worker:dev"}]}},
        },
    }


def pod(job_name: str, index: int, run: str = "flu", **status: Any) -> Object:
    """A pod of a Job; `status` as its kubelet writes it."""
    return {
        "metadata": {
            "name": f"{job_name}-{index}-x7k2p",
            "labels": {names.LABEL_JOB: job_name, names.LABEL_RUN: run},
            "annotations": {names.ANNOTATION_INDEX: str(index)},
            "creationTimestamp": moment(),
        },
        "spec": {"nodeName": "node-1"},
        "status": status,
    }


def ended(exit_code: int, message: str = "", reason: str = "Error") -> Object:
    """The status of a pod whose main container left with this code."""
    state = {"terminated": {"exitCode": exit_code, "message": message, "reason": reason}}
    return {"phase": "Failed", "containerStatuses": [{"name": "main", "state": state}]}


def merged(target: Object, patch: Object) -> Object:
    """A strategic merge as far as maps go: null takes a key away."""
    result = copy.deepcopy(target)
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        elif isinstance(value, dict):
            result[key] = merged(result.get(key) or {}, value)
        else:
            result[key] = value
    return result


def matches_labels(one: Object, selector: str | None) -> bool:
    labels = one["metadata"].get("labels") or {}
    for part in filter(None, (selector or "").split(",")):
        key, equals, value = part.partition("=")
        if key not in labels or (equals and labels[key] != value):
            return False
    return True


def matches_phase(one: Object, selector: str | None) -> bool:
    assert selector in (None, "status.phase!=Succeeded")
    return selector is None or one.get("status", {}).get("phase") != "Succeeded"


def status_of(code: int, message: str) -> Object:
    return {"kind": "Status", "status": "Failure", "message": message, "code": code}
