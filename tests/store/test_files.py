"""One contract for every kind of store: a local folder, memory and a real S3 server."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from medkd.errors import ConfigError, RefusedError, UnreachableError
from medkd.store.files import MemoryStore, S3Store, Store, StoredFile, check_exclusive_create, open_store

if TYPE_CHECKING:
    from tests.seaweedfs import S3Server

# Names that have tripped stores before: globs, spaces, a URL's own signs, and the word that S3 uses in its errors.
ODD_PREFIXES = ["plain", "my-bucket/run", "run [1]", "a b+c", "ünïcode", "50%20off", "model@main"]


@pytest.fixture(params=ODD_PREFIXES)
def odd_store(store: Store, request: pytest.FixtureRequest) -> Store:
    return store.sub(request.param)


def test_what_was_created_is_read_back(store: Store) -> None:
    data = bytes(range(256)) * 100
    assert store.create("a/b/c.bin", data)
    assert store.read("a/b/c.bin") == data
    assert store.create("empty", b"")
    assert store.read("empty") == b""


def test_a_second_create_is_refused_and_changes_nothing(store: Store) -> None:
    assert store.create("plan.json", b"first")
    assert not store.create("plan.json", b"second")
    assert store.read("plan.json") == b"first"


def test_create_is_refused_where_a_replace_has_written(store: Store) -> None:
    store.replace("file", b"first")
    assert not store.create("file", b"second")
    assert store.read("file") == b"first"


@pytest.fixture
def restless_threads() -> Iterator[None]:
    """Threads that give way to one another a thousand times as often as usual, so that races show."""
    usual = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(usual)


@pytest.mark.usefixtures("restless_threads")
@pytest.mark.parametrize("race", range(3))
def test_of_eight_threads_that_create_one_path_exactly_one_wins(store: Store, race: int) -> None:
    ready = threading.Barrier(8)

    def create(number: int) -> bool:
        ready.wait()
        return store.create("journal/000000", b"%d" % number * 1000)

    with ThreadPoolExecutor(8) as threads:
        won = list(threads.map(create, range(8)))
    assert won.count(True) == 1
    assert store.read("journal/000000") == b"%d" % won.index(True) * 1000
    assert [file.path for file in store.list_files()] == ["journal/000000"], "losers leave nothing behind"


def test_a_reader_never_sees_half_of_a_replaced_file(store: Store) -> None:
    versions = [bytes([number]) * 200_000 for number in range(10)]
    store.replace("progress.json", versions[0])
    done = threading.Event()

    def read() -> set[bytes]:
        seen = set()
        while not done.is_set():
            seen.add(store.read("progress.json"))
        return seen

    with ThreadPoolExecutor(2) as threads:
        readers = [threads.submit(read) for _ in range(2)]
        for version in versions:
            store.replace("progress.json", version)
        done.set()
        seen = set().union(*(reader.result() for reader in readers))
    assert seen <= set(versions)
    assert store.read("progress.json") == versions[-1]


def test_a_listing_is_sorted_and_sized_and_below_its_folder_only(store: Store) -> None:
    for path in ("b/2", "b/10", "a", "b/sub/1", "b2/1", "c"):
        store.create(path, path.encode())
    assert store.list_files() == [StoredFile(path, len(path)) for path in ("a", "b/10", "b/2", "b/sub/1", "b2/1", "c")]
    assert [file.path for file in store.list_files("b")] == ["b/10", "b/2", "b/sub/1"]
    assert [file.path for file in store.list_files("b/sub")] == ["b/sub/1"]


def test_a_folder_that_does_not_exist_lists_as_empty(store: Store) -> None:
    assert store.list_files("nowhere") == []
    assert store.list_files() == []


def test_a_listing_beside_writers_misses_nothing_that_was_there_before(store: Store) -> None:
    standing = [f"budget/{number:06d}" for number in range(20)]
    for path in standing:
        store.create(path, b"1")
    done = threading.Event()

    def write(writer: int) -> None:
        number = 0
        while not done.is_set():
            path = f"budget/writer-{writer}-{number % 5}"
            store.create(path, b"x")
            store.replace("budget/progress", b"y")
            store.delete(path)
            number += 1

    with ThreadPoolExecutor(3) as threads:
        writers = [threads.submit(write, writer) for writer in range(3)]
        try:
            listings = [{file.path for file in store.list_files("budget")} for _ in range(30)]
        finally:
            done.set()
        for writer in writers:
            writer.result()
    assert all(set(standing) <= listing for listing in listings)


def test_delete_removes_a_file_and_does_nothing_where_there_is_none(store: Store) -> None:
    store.create("a/file", b"1")
    store.delete("a/file")
    store.delete("a/file")
    store.delete("never/was")
    assert not store.exists("a/file")
    assert store.create("a/file", b"2"), "a deleted path is free again"


def test_reading_what_is_absent_is_file_not_found(odd_store: Store) -> None:
    with pytest.raises(FileNotFoundError):
        odd_store.read("absent")
    odd_store.create("there", b"1")
    with pytest.raises(FileNotFoundError):
        odd_store.read("absent")
    with pytest.raises(FileNotFoundError):
        odd_store.read_many(["there", "absent"])


def test_every_verb_works_below_an_odd_prefix(odd_store: Store) -> None:
    assert odd_store.create("d/x", b"1")
    assert not odd_store.create("d/x", b"2")
    odd_store.replace("d/y", b"22")
    assert odd_store.read_many(["d/y", "d/x"]) == {"d/y": b"22", "d/x": b"1"}
    assert odd_store.list_files() == [StoredFile("d/x", 1), StoredFile("d/y", 2)]
    assert [odd_store.exists(path) for path in ("d/x", "d", "d/z")] == [True, False, False]
    odd_store.delete("d/x")
    assert [file.path for file in odd_store.list_files()] == ["d/y"]


def test_many_files_are_read_at_once_and_none_is_no_request(store: Store) -> None:
    wanted = {f"journal/{number:06d}": b"%d" % number for number in range(30)}
    for path, data in wanted.items():
        store.create(path, data)
    assert store.read_many(wanted) == wanted
    assert store.read_many([]) == {}


def test_a_sub_store_is_the_same_store_seen_from_a_folder(store: Store) -> None:
    below = store.sub("students/tiny")
    assert below.create("model/config.json", b"{}")
    assert store.read("students/tiny/model/config.json") == b"{}"
    assert [file.path for file in below.list_files()] == ["model/config.json"]
    assert not store.create("students/tiny/model/config.json", b"other")
    assert below.url == f"{store.url}/students/tiny"
    assert below.stop is store.stop, "whoever stops the store stops its parts"


def test_a_directory_goes_up_and_comes_down_unchanged(store: Store, tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    files = {"model.safetensors": b"\0" * 300_000, "tokenizer/vocab.txt": "ü\n".encode(), "empty": b""}
    for name, data in files.items():
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_bytes(data)
    store.create("students/a/model/empty", b"from before")
    stored = store.upload(source, "students/a/model")
    assert stored == [StoredFile(f"students/a/model/{name}", len(files[name])) for name in sorted(files)]
    assert stored == store.list_files("students/a/model")
    store.download("students/a/model", target)
    assert {path.relative_to(target).as_posix(): path.read_bytes() for path in target.rglob("*") if path.is_file()} == files


def test_the_exclusive_create_of_every_store_is_proven_and_leaves_no_trace(store: Store) -> None:
    check_exclusive_create(store)
    left = store.filesystem.find(store.root, detail=True)
    assert [path for path, info in left.items() if info["type"] == "file"] == []


class OverwritingStore(MemoryStore):
    """What a store without conditional writes does: the second create succeeds as well."""

    def create(self, path: str, data: bytes) -> bool:
        self.replace(path, data)
        return True


class HalfRefusingStore(MemoryStore):
    """Keeps the first file, yet tells the second writer that it had won."""

    def create(self, path: str, data: bytes) -> bool:
        super().create(path, data)
        return True


@pytest.mark.parametrize("kind", [OverwritingStore, HalfRefusingStore])
def test_a_store_whose_creates_are_not_exclusive_is_turned_away(kind: type[MemoryStore]) -> None:
    memory = open_store(f"memory://{uuid.uuid4().hex}")
    store = kind(memory.url, memory.filesystem, memory.root)
    with pytest.raises(ConfigError, match=r"second create of the same file was not refused.*conditional writes"):
        check_exclusive_create(store)
    assert store.list_files() == []


@pytest.mark.parametrize("url", ["nonsense://bucket/run", "http://localhost/run"])
def test_an_unknown_kind_of_url_is_a_configuration_error(url: str) -> None:
    with pytest.raises(ConfigError, match=url):
        open_store(url)


# --- a local folder ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("below", ["", "/run", "/deep/run"])
def test_a_prefix_at_or_below_a_regular_file_says_that_they_are_in_each_others_way(tmp_path: Path, below: str) -> None:
    (tmp_path / "file").write_text("in the way")
    store = open_store(f"{tmp_path}/file{below}")
    for write in (lambda: store.create("plan.json", b"1"), lambda: store.replace("plan.json", b"1")):
        with pytest.raises(ConfigError, match="a file and a folder are in each other's way; choose another --prefix"):
            write()
    with pytest.raises(ConfigError, match="in each other's way"):
        check_exclusive_create(store)
    assert (tmp_path / "file").read_text() == "in the way"


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
def test_a_place_where_nobody_can_write_is_a_configuration_error() -> None:
    with pytest.raises(ConfigError, match="nothing can be written there; choose another --prefix"):
        check_exclusive_create(open_store("/proc/medkd/run"))


@pytest.mark.skipif(hasattr(os, "geteuid") and os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(RefusedError, match=r"no permission to write '\.probe"):
        check_exclusive_create(open_store(str(tmp_path / "run")))


def test_a_file_system_without_hard_links_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    store = open_store(str(tmp_path))
    with pytest.raises(ConfigError, match="no hard links; choose another --prefix"):
        store.create("plan.json", b"1")
    assert list(tmp_path.iterdir()) == []


def test_a_write_that_fails_half_way_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    store = open_store(str(tmp_path))
    with pytest.raises(UnreachableError, match="No space left on device"):
        store.create("plan.json", b"1")
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_writer_left_half_written_is_not_listed(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    store.create("journal/000000", b"1")
    (tmp_path / "journal" / f".000001.{uuid.uuid4().hex}").write_bytes(b"half")
    assert [file.path for file in store.list_files()] == ["journal/000000"]


# --- S3 ---------------------------------------------------------------------------------------------------------------


@pytest.mark.s3
def test_credentials_that_may_only_read_are_refused_by_name_of_the_write(s3_server: S3Server) -> None:
    prefix = f"s3://runs/{uuid.uuid4().hex}"
    open_store(prefix, s3_server.options()).create("plan.json", b"1")
    reader = open_store(prefix, s3_server.options("reader"))
    assert reader.read("plan.json") == b"1"
    for write in (lambda: reader.create("new", b""), lambda: reader.replace("new", b""), lambda: check_exclusive_create(reader)):
        with pytest.raises(RefusedError, match="no permission to write"):
            write()


@pytest.mark.s3
def test_a_child_process_finds_the_server_by_its_environment(s3_server: S3Server) -> None:
    prefix = f"s3://runs/{uuid.uuid4().hex}"
    code = f"from medkd.store.files import open_store; print(open_store({prefix!r}).create('plan.json', b'child'))"
    environment = {**os.environ, **s3_server.environment}
    printed = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True).stdout
    assert printed.strip() == "True"
    store = open_store(prefix, s3_server.options())
    assert store.read("plan.json") == b"child"
    assert not store.create("plan.json", b"parent")


@pytest.mark.s3
def test_wrong_credentials_are_refused(s3_server: S3Server) -> None:
    store = open_store("s3://runs/run", {**s3_server.options(), "secret": "wrong"})
    for action in (lambda: store.read("plan.json"), lambda: store.list_files(), lambda: store.create("plan.json", b"")):
        with pytest.raises(RefusedError):
            action()


@pytest.mark.s3
def test_a_bucket_that_does_not_exist_is_named_by_every_verb(s3_server: S3Server) -> None:
    store = open_store("s3://no-such-bucket/run", s3_server.options())
    verbs: list[Callable[[], Any]] = [
        lambda: store.read("plan.json"),
        lambda: store.exists("plan.json"),
        lambda: store.list_files(),
        lambda: store.create("plan.json", b""),
        lambda: store.replace("plan.json", b""),
        lambda: check_exclusive_create(store),
    ]
    for verb in verbs:
        with pytest.raises(ConfigError, match="the bucket does not exist; create it or mend --prefix"):
            verb()


@pytest.mark.parametrize(
    ("url", "options", "message"),
    [
        ("s3://runs/run", {"client_kwargs": {"endpoint_url": "localhost:8333"}}, "Invalid endpoint: localhost:8333"),
        ("s3://runs/run", {"endpoint": "http://localhost:8333"}, "unexpected keyword argument 'endpoint'"),
        ("s3://Not a bucket/run", {}, "not a usable bucket or path; mend --prefix"),
        ("s3://", {}, "not a usable bucket or path; mend --prefix"),
    ],
)
def test_an_s3_url_or_option_that_cannot_work_is_a_configuration_error(url: str, options: dict[str, Any], message: str) -> None:
    pytest.importorskip("s3fs")
    with pytest.raises(ConfigError, match=message):
        open_store(url, {"key": "k", "secret": "s", **options}).create("plan.json", b"")


@contextmanager
def answering(*answers: tuple[int, str]) -> Iterator[tuple[Store, list[str]]]:
    """An S3 store whose server gives these answers (status, code) to PUTs, the last one for ever, and the PUTs it got."""
    pytest.importorskip("s3fs")
    puts: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_PUT(self) -> None:
            puts.append(self.headers.get("If-None-Match", ""))
            self.rfile.read(int(self.headers["Content-Length"]))
            status, code = answers[min(len(puts), len(answers)) - 1]
            body = f"<Error><Code>{code}</Code><Message>{code}</Message></Error>".encode() if code else b""
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    options = {"key": "k", "secret": "s", "client_kwargs": {"endpoint_url": f"http://127.0.0.1:{server.server_port}"}}
    try:
        yield open_store("s3://runs/run", options), puts
    finally:
        server.shutdown()
        server.server_close()


def test_an_s3_server_that_does_not_know_conditional_writes_is_a_configuration_error_at_once() -> None:
    with answering((501, "NotImplemented")) as (store, puts):
        with pytest.raises(ConfigError, match="conditional writes"):
            check_exclusive_create(store)
        assert set(puts) == {"*"}


def test_a_create_that_meets_another_one_under_way_asks_again_until_it_knows() -> None:
    with answering((409, "ConditionalRequestConflict"), (200, "")) as (store, puts):
        assert store.create("plan.json", b"1"), "the other write failed, so this one counts"
        assert puts == ["*", "*"]
    with answering((409, "ConditionalRequestConflict"), (412, "PreconditionFailed")) as (store, _):
        assert not store.create("plan.json", b"1")


def test_an_unreachable_s3_server_is_tried_again_until_the_run_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("s3fs")
    monkeypatch.setattr(S3Store, "patience_seconds", 60.0)
    config = {"retries": {"max_attempts": 0}, "connect_timeout": 1}
    options = {"key": "k", "secret": "s", "client_kwargs": {"endpoint_url": "http://127.0.0.1:1"}, "config_kwargs": config}
    store = open_store("s3://runs/run", options)
    store.filesystem.retries = 1
    threading.Timer(0.5, store.stop.set).start()
    began = time.monotonic()
    with pytest.raises(UnreachableError, match=r"cannot write 'plan\.json'"):
        store.create("plan.json", b"")
    assert 0.4 < time.monotonic() - began < 20


def test_files_that_are_there_are_read_at_once_and_the_others_left_out(store: Store) -> None:
    store.replace("a/1", b"one")
    store.replace("a/2", b"two")
    assert store.read_present(["a/1", "a/3", "a/2", "b/[x]"]) == {"a/1": b"one", "a/2": b"two"}
    assert store.read_present([]) == {}
