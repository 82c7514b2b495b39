"""One exchange over a real socket, with everything a server and the network can do to it."""

from __future__ import annotations

import gzip
import shutil
import socket
import ssl
import subprocess
import threading
import time

import pytest

from medkd.teacher import transport as transport_module
from medkd.teacher.transport import Failure, HttpAnswer, Transport
from tests.teacher.scripted import CLOSE, RESET, Pause, ScriptedTeacher, answer

OK = answer(200, {"fine": True})
DEADLINE = 0.4


def exchange(entry, *, deadline=5.0, path="/chat/completions"):
    """What a fresh transport makes of the one request that a server answers with `entry`."""
    with ScriptedTeacher([entry]) as server:
        transport = Transport(server.url, {"x-test": "yes"}, threads=2, deadline_seconds=deadline)
        try:
            return transport.exchange("POST", path, b"{}"), server
        finally:
            transport.close()


def drip(raw: bytes, seconds: float = 0.05):
    return [step for position in range(len(raw)) for step in (raw[position : position + 1], Pause(seconds))]


def test_a_request_arrives_as_given_and_its_answer_comes_whole():
    found, server = exchange(OK)
    assert isinstance(found, HttpAnswer)
    assert (found.status, found.body) == (200, b'{"fine": true}')
    assert found.headers["content-type"] == "application/json"
    received = server.requests[0]
    assert (received.method, received.path, received.body) == ("POST", "/v1/chat/completions", b"{}")
    assert received.headers["x-test"] == "yes"


def test_connections_are_kept_alive():
    with ScriptedTeacher([OK]) as server:
        transport = Transport(server.url, {}, threads=2, deadline_seconds=5)
        for _ in range(5):
            transport.exchange("POST", "/x", b"{}")
        transport.close()
        assert {received.connection for received in server.requests} == {1}


def test_a_connection_that_the_server_closed_while_idle_is_replaced():
    with ScriptedTeacher(lambda number, received: [OK, CLOSE]) as server:
        transport = Transport(server.url, {}, threads=2, deadline_seconds=5)
        for _ in range(3):
            assert isinstance(transport.exchange("POST", "/x", b"{}"), HttpAnswer)
            time.sleep(0.05)
        transport.close()


def test_early_hints_are_not_the_answer():
    hints = b"HTTP/1.1 103 Early Hints\r\nLink: </style.css>\r\n\r\n"
    found, _ = exchange([b"HTTP/1.1 100 Continue\r\n\r\n", hints, Pause(0.05), hints + OK])
    assert isinstance(found, HttpAnswer) and found.body == b'{"fine": true}'


def test_a_redirect_is_handed_back_and_not_followed():
    with ScriptedTeacher([OK]) as other:
        found, server = exchange(answer(307, b"", {"Location": other.url}))
        assert isinstance(found, HttpAnswer) and found.status == 307
        assert len(server.requests) == 1 and other.requests == []


def test_a_compressed_answer_is_unpacked():
    found, _ = exchange(answer(200, gzip.compress(b'{"fine": 1}'), {"Content-Encoding": "gzip"}))
    assert isinstance(found, HttpAnswer) and found.body == b'{"fine": 1}'


def test_blank_lines_before_the_answer_are_part_of_its_body():
    found, _ = exchange([b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n", b"\n", Pause(0.05), b"\n\n{}", CLOSE])
    assert isinstance(found, HttpAnswer) and found.body.strip() == b"{}"


@pytest.mark.parametrize(
    "entry",
    [
        pytest.param(RESET, id="reset before any answer"),
        pytest.param(CLOSE, id="closed before any answer"),
        pytest.param([OK[:20], RESET], id="reset within the headers"),
        pytest.param([OK[:-3], RESET], id="reset within the body"),
        pytest.param([OK[:-3], CLOSE], id="short of its length"),
        pytest.param([b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n", CLOSE], id="last chunk missing"),
        pytest.param([b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", CLOSE], id="broken chunk"),
        pytest.param([b"NONSENSE\r\n\r\n", CLOSE], id="no HTTP"),
        pytest.param([answer(200, b"no gzip", {"Content-Encoding": "gzip"})], id="broken compression"),
    ],
)
def test_what_breaks_after_the_send_is_lost(entry):
    found, _ = exchange(entry)
    assert isinstance(found, Failure) and found.kind == "lost"


@pytest.mark.parametrize(
    "entry",
    [
        pytest.param(Pause(30), id="never answers"),
        pytest.param(drip(OK, 0.1), id="headers drip"),
        pytest.param([b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n", *drip(b"\n" * 1000)], id="body drips"),
        pytest.param([b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n", *drip(b"\n" * 1000)], id="blank lines for ever"),
        pytest.param(
            [b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", *drip(b"1\r\n\n\r\n" * 500, 0.02)], id="chunks drip"
        ),
        pytest.param([b"HTTP/1.1 103 Early Hints\r\n\r\n", Pause(0.05)] * 500, id="early hints for ever"),
    ],
)
def test_the_deadline_ends_every_way_of_taking_for_ever(entry):
    found, _ = exchange(entry, deadline=DEADLINE)
    assert isinstance(found, Failure) and (found.kind, found.reason) in (("lost", "deadline"), ("lost", "timeout"))


def test_a_deadline_leaves_other_exchanges_alone():
    with ScriptedTeacher(lambda number, received: Pause(30) if received.path.endswith("slow") else OK) as server:
        transport = Transport(server.url, {}, threads=4, deadline_seconds=DEADLINE)
        slow: list[object] = []
        thread = threading.Thread(target=lambda: slow.append(transport.exchange("POST", "/slow", b"{}")))
        thread.start()
        quick = []
        while thread.is_alive():
            quick.append(transport.exchange("POST", "/quick", b"{}"))
        thread.join()
        transport.close()
    assert isinstance(slow[0], Failure)
    assert len(quick) > 1 and all(isinstance(found, HttpAnswer) for found in quick)


def test_closing_ends_what_is_in_flight():
    with ScriptedTeacher([Pause(30)]) as server:
        transport = Transport(server.url, {}, threads=2, deadline_seconds=600)
        found: list[object] = []
        thread = threading.Thread(target=lambda: found.append(transport.exchange("POST", "/x", b"{}")))
        thread.start()
        while not server.requests:
            time.sleep(0.01)
        transport.close()
        thread.join(5)
    assert isinstance(found[0], Failure) and found[0].kind == "lost"


def test_a_body_beyond_all_bounds_is_not_read_to_its_end(monkeypatch):
    monkeypatch.setattr(transport_module, "MAX_BODY_BYTES", 1000)
    found, _ = exchange(answer(200, b" " * 500_000))
    assert found == Failure(kind="lost", reason="too_large")


def test_where_nobody_listens_nothing_is_sent():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    for url in (f"http://127.0.0.1:{port}/v1", "http://no-such-host.invalid/v1"):
        transport = Transport(url, {}, threads=1, deadline_seconds=5)
        found = transport.exchange("POST", "/x", b"{}")
        transport.close()
        assert isinstance(found, Failure) and found.kind == "not_sent"


def test_neither_proxy_variables_nor_a_netrc_file_are_heeded(monkeypatch, tmp_path):
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login someone password else\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / ".netrc"))
    for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    with ScriptedTeacher([OK]) as server:
        transport = Transport(server.url, {"Authorization": "Bearer sk-1"}, threads=1, deadline_seconds=5)
        assert isinstance(transport.exchange("POST", "/x", b"{}"), HttpAnswer)
        transport.close()
        assert server.requests[0].headers["authorization"] == "Bearer sk-1"


def test_a_proxy_that_is_given_is_used():
    with ScriptedTeacher([OK]) as proxy:
        given = {"http": f"http://127.0.0.1:{proxy.port}"}
        transport = Transport("http://teacher.invalid/v1", {}, threads=1, deadline_seconds=5, proxies=given)
        assert isinstance(transport.exchange("POST", "/x", b"{}"), HttpAnswer)
        transport.close()
        assert proxy.requests[0].path == "http://teacher.invalid/v1/x"


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """A self-signed certificate for localhost with its key, in one PEM file."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("needs the openssl program")
    pem = tmp_path_factory.mktemp("tls") / "server.pem"
    subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1", "-days", "2"]
    files = ["-keyout", str(pem), "-out", str(pem.with_suffix(".crt"))]
    subprocess.run([openssl, "req", "-x509", "-newkey", "rsa:2048", "-nodes", *files, *subject], check=True, capture_output=True)
    pem.write_bytes(pem.read_bytes() + pem.with_suffix(".crt").read_bytes())
    return pem


@pytest.fixture
def tls_server(certificate):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    with ScriptedTeacher(lambda number, received: Pause(30) if received.path.endswith("slow") else OK, tls=context) as server:
        yield server


def test_a_certificate_that_nobody_vouches_for_is_a_matter_of_configuration(tls_server):
    transport = Transport(tls_server.url, {}, threads=1, deadline_seconds=5)
    assert transport.exchange("POST", "/x", b"{}") == Failure(kind="configuration", reason="certificate")
    transport.close()
    assert tls_server.requests == []


def test_a_certificate_of_the_given_bundle_is_accepted(tls_server, certificate):
    transport = Transport(tls_server.url, {}, threads=1, deadline_seconds=5, ca_bundle=str(certificate))
    assert isinstance(transport.exchange("POST", "/x", b"{}"), HttpAnswer)
    transport.close()


def test_the_deadline_holds_through_tls(tls_server, certificate):
    transport = Transport(tls_server.url, {}, threads=1, deadline_seconds=DEADLINE, ca_bundle=str(certificate))
    found = transport.exchange("POST", "/slow", b"{}")
    transport.close()
    assert isinstance(found, Failure) and found.kind == "lost"


def test_tls_spoken_to_a_plain_server_breaks_before_anything_is_sent():
    with ScriptedTeacher([OK]) as server:
        transport = Transport(server.url.replace("http:", "https:"), {}, threads=1, deadline_seconds=2)
        found = transport.exchange("POST", "/x", b"{}")
        transport.close()
        assert isinstance(found, Failure) and found.kind == "not_sent"
