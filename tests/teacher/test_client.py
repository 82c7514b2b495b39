"""The client against a real server: what comes of each kind of answer, what it costs, and who waits for whom."""

from __future__ import annotations

import json
import logging
import socket
import threading
import time
import traceback

import pytest

from medkd.config import Limits, Prices
from medkd.errors import ConfigError, MedkdError, RefusedError, StoppedError, UnreachableError
from medkd.teacher import rates
from medkd.teacher.client import Answer, TeacherClient
from medkd.teacher.prompts import Message, Request
from tests.teacher.scripted import CLOSE, RESET, Pause, ScriptedTeacher, answer, completion, completion_body, error, teacher

REQUEST = Request(messages=(Message("user", "Question?"),), reply_limit=100)
KEY = "sk-canary-0123456789abcdef"
LIMITED = Limits(max_concurrency=16)


@pytest.fixture(autouse=True)
def short_backoff(monkeypatch):
    monkeypatch.setattr(rates, "MIN_BACKOFF", 0.001)
    monkeypatch.setattr(rates, "MAX_BACKOFF", 0.02)


@pytest.fixture
def clients():
    """Makes clients for a server and closes them."""
    made: list[TeacherClient] = []

    def make(server, *, api_key=None, stop=None, config=None, **options) -> TeacherClient:
        made.append(TeacherClient(teacher(server, **(config or {})), api_key=api_key, stop=stop or threading.Event(), **options))
        return made[-1]

    yield make
    for client in made:
        client.close()


def asked(clients, script, *, request=REQUEST, **options) -> tuple[Answer, list[float], ScriptedTeacher]:
    """The answer, what was reserved for it, and the server that was asked."""
    reserved: list[float] = []
    with ScriptedTeacher(script) as server:
        return clients(server, **options).ask(request, reserved.append), reserved, server


def outcomes(client: TeacherClient, number: int, threads: int) -> list[Answer | MedkdError]:
    """What `number` questions from so many threads come to."""
    found: list[Answer | MedkdError] = []
    left = iter(range(number))

    def work() -> None:
        for _ in left:
            try:
                found.append(client.ask(REQUEST, lambda upper_bound: None))
            except MedkdError as problem:
                found.append(problem)

    workers = [threading.Thread(target=work) for _ in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return found


# --- single answers -----------------------------------------------------------------------------------------------------


def test_a_good_answer_comes_with_its_price(clients):
    found, reserved, server = asked(clients, [completion("Doctor: Hi")])
    assert (found.outcome, found.reason, found.attempts) == ("reply", "reply", 1)
    assert found.reply is not None
    assert (found.reply.text, found.reply.served_model, found.reply.request_id) == ("Doctor: Hi", "served-1", "req-1")
    assert found.cost_usd == pytest.approx((1000 * 1.0 + 500 * 2.0) / 1e6) and found.possibly_usd == 0
    assert reserved == [pytest.approx((len(server.requests[0].body) * 1.0 + 100 * 2.0) / 1e6)]
    assert found.at.startswith("20") and found.at.endswith("+00:00")


@pytest.mark.parametrize(
    ("entry", "outcome", "reason"),
    [
        (completion("{", "length"), "repair", "length"),
        (completion("  "), "repair", "empty"),
        (completion(None, "content_filter"), "reject", "refused"),
        (error(400, "context_length_exceeded"), "reject", "too_long"),
        (error(400, "json_validate_failed"), "repair", "json_validate_failed"),
        (error(500, headers={"x-should-retry": "false"}), "reject", "not_retryable"),
    ],
)
def test_what_is_no_reply_is_named(clients, entry, outcome, reason):
    found, _, server = asked(clients, [entry])
    assert (found.outcome, found.reason, found.attempts) == (outcome, reason, 1)
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    "entry",
    [RESET, [completion()[:-5], CLOSE], answer(200, b"<html>"), error(500), error(409), completion("half", "abort")],
    ids=["reset", "short", "html", "500", "409", "aborted"],
)
def test_a_failed_call_is_sent_again(clients, entry):
    found, _, server = asked(clients, [entry, completion()])
    assert (found.outcome, found.attempts, len(server.requests)) == ("reply", 2, 2)


def test_attempts_are_bounded(clients):
    found, _, server = asked(clients, [error(500)])
    assert (found.outcome, found.reason, found.attempts, len(server.requests)) == ("reject", "attempts_exhausted", 5, 5)


def test_waits_do_not_use_up_attempts(clients):
    waits = [error(429, headers={"retry-after-ms": "5"})] * 8
    found, _, server = asked(clients, [*waits, completion()])
    assert (found.outcome, found.attempts, len(server.requests)) == ("reply", 1, 9)


# --- money --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("entry", [RESET, [completion()[:-5], CLOSE], answer(200, b"<html>")], ids=["reset", "short", "html"])
def test_a_send_of_unknown_outcome_is_possibly_paid(clients, entry):
    found, reserved, _ = asked(clients, [entry, completion()])
    assert len(reserved) == 2
    assert found.possibly_usd == reserved[0]


def test_a_refused_send_costs_nothing_and_leaves_its_reservation_to_the_next(clients):
    found, reserved, server = asked(clients, [error(429, headers={"retry-after-ms": "5"}), error(500), completion()])
    assert len(reserved) == 1 and len(server.requests) == 3
    assert (found.cost_usd, found.possibly_usd) == (pytest.approx(0.002), 0.0)


def test_an_aborted_answer_is_paid_by_its_usage(clients):
    found, reserved, _ = asked(clients, [completion("half", "abort"), completion()])
    assert len(reserved) == 2
    assert (found.cost_usd, found.possibly_usd) == (pytest.approx(0.004), 0.0)


def test_without_usage_the_reservation_stands(clients):
    found, reserved, _ = asked(clients, [completion(usage=None)])
    assert (found.outcome, found.cost_usd, found.possibly_usd) == ("reply", 0.0, reserved[0])


def test_what_reserve_raises_prevents_the_send(clients):
    with ScriptedTeacher([completion()]) as server:
        client = clients(server)

        def refuse(upper_bound: float) -> None:
            raise RefusedError("budget")

        with pytest.raises(RefusedError, match="budget"):
            client.ask(REQUEST, refuse)
        assert server.requests == [] and client.state()["in_flight"] == 0


@pytest.mark.parametrize("lost", [0, 1, 3])
def test_where_no_answer_comes_what_was_reserved_is_released_but_for_sends_that_may_have_been_billed(clients, lost):
    reserved, released = [], []
    with ScriptedTeacher([*[RESET] * lost, error(402)]) as server:
        with pytest.raises(RefusedError):
            clients(server).ask(REQUEST, reserved.append, released.append)
        assert len(server.requests) == lost + 1
    assert sum(reserved) - sum(released) == pytest.approx(lost * reserved[0])
    assert len(released) == 1


def test_a_call_that_a_stop_finds_in_a_pause_releases_all(clients):
    stop, reserved, released = threading.Event(), [], []
    with ScriptedTeacher([error(429, headers={"retry-after": "3600"})]) as server:
        client = clients(server, stop=stop)
        threading.Timer(0.3, stop.set).start()
        with pytest.raises(StoppedError):
            client.ask(REQUEST, reserved.append, released.append)
    assert released == reserved and len(reserved) == 1


def test_could_not_connect_costs_nothing():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    reserved: list[float] = []
    config = teacher(base_url=f"http://127.0.0.1:{port}/v1")
    client = TeacherClient(config, api_key=None, stop=threading.Event(), unreachable_seconds=0.3)
    with pytest.raises(UnreachableError, match=r"teacher teacher-1 at 127\.0\.0\.1: no answer for"):
        client.ask(REQUEST, reserved.append)
    client.close()
    assert client.state()["calls"] > 5 and len(reserved) == 1


# --- stops --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("entry", "kind", "message"),
    [
        (error(402), RefusedError, r"top up .*\(HTTP 402\)"),
        (error(429, "insufficient_quota"), RefusedError, "top up .*HTTP 429, code insufficient_quota"),
        (error(401, "invalid_api_key"), RefusedError, "does not accept the API key; check the secret"),
        (error(403), RefusedError, "may not use it"),
        (error(429, headers={"x-should-retry": "false"}), RefusedError, "limit of the account"),
        (error(404, "model_not_found"), ConfigError, "does not serve this model"),
        (error(400, "unsupported_value", "'temperature' does not support 0.2"), ConfigError, "field temperature"),
        (answer(301, b"", {"Location": "http://elsewhere/"}), ConfigError, "code redirect"),
    ],
)
def test_a_stop_is_an_error_that_says_what_to_do(clients, entry, kind, message):
    with ScriptedTeacher([entry]) as server:
        with pytest.raises(kind, match="teacher teacher-1 at 127.0.0.1: .*" + message):
            clients(server).ask(REQUEST, lambda upper_bound: None)
        assert len(server.requests) == 1


def test_after_a_stop_no_thread_sends_anything_more(clients):
    def script(number, received):
        return error(402) if number == 9 else [Pause(0.01), completion()]

    with ScriptedTeacher(script) as server:
        client = clients(server, config={"limits": LIMITED})
        found = outcomes(client, 100, threads=12)
        sent = len(server.requests)
        assert sent <= 10 + server.peak
        assert sum(isinstance(one, RefusedError) for one in found) == 100 - sum(isinstance(one, Answer) for one in found)
        with pytest.raises(RefusedError, match="top up"):
            client.ask(REQUEST, lambda upper_bound: None)
        assert len(server.requests) == sent


def test_who_waits_for_the_slot_of_a_stopped_call_sends_nothing(clients):
    for _ in range(10):
        with ScriptedTeacher([error(402)]) as server:
            found = outcomes(clients(server, config={"limits": Limits(max_concurrency=1)}), 8, threads=8)
            assert [type(one) for one in found] == [RefusedError] * 8
            assert len(server.requests) == 1


def test_a_proxys_forbidden_page_is_asked_twice_more_and_then_believed(clients):
    page = answer(403, b"<html>Forbidden</html>", {"Content-Type": "text/html"})
    with ScriptedTeacher([page]) as server:
        with pytest.raises(RefusedError, match="may not use it"):
            clients(server).ask(REQUEST, lambda upper_bound: None)
        assert len(server.requests) == 3
    found, _, _ = asked(clients, [page, page, completion()])
    assert found.outcome == "reply"


def test_the_first_five_records_rejected_alike_mean_a_wrong_request(clients):
    with ScriptedTeacher([error(422, "odd")]) as server:
        client = clients(server)
        for _ in range(4):
            assert client.ask(REQUEST, lambda upper_bound: None).reason == "bad_request"
        with pytest.raises(ConfigError, match=r"does not take a request like this.*code odd"):
            client.ask(REQUEST, lambda upper_bound: None)


def test_records_rejected_after_a_success_are_their_own_fault(clients):
    with ScriptedTeacher([completion(), error(422)]) as server:
        client = clients(server)
        reasons = [client.ask(REQUEST, lambda upper_bound: None).reason for _ in range(10)]
        assert reasons == ["reply"] + ["bad_request"] * 9


def test_a_listed_model_is_no_success_of_a_request(clients):
    def script(number, received):
        return answer(200, {"data": [{"id": "teacher-1"}]}) if received.method == "GET" else error(422)

    with ScriptedTeacher(script) as server:
        client = clients(server)
        assert client.models() == ["teacher-1"]
        with pytest.raises(ConfigError):
            for _ in range(5):
                client.ask(REQUEST, lambda upper_bound: None)


# --- waiting ------------------------------------------------------------------------------------------------------------


def test_an_ordered_wait_holds_all_threads(clients):
    ordered = 0.6
    lock, orders = threading.Lock(), []

    def script(number, received):
        with lock:
            first = number == 20
            if first:
                orders.append(time.monotonic())
        return error(429, headers={"retry-after": str(ordered)}) if first else [Pause(0.01), completion()]

    with ScriptedTeacher(script) as server:
        found = outcomes(clients(server, config={"limits": LIMITED}), 200, threads=16)
        during = [received for received in server.requests if 0 < received.at - orders[0] < ordered]
    assert [one.outcome for one in found if isinstance(one, Answer)] == ["reply"] * 200
    # Only what was under way when the order was given may still arrive; the other hundred and more wait.
    assert len(during) <= 16


def test_who_waits_for_the_slot_of_a_call_told_to_wait_waits_too(clients):
    with ScriptedTeacher([error(429, headers={"retry-after-ms": "400"}), completion()]) as server:
        found = outcomes(clients(server, config={"limits": Limits(max_concurrency=1)}), 8, threads=8)
        first, second = server.requests[:2]
    assert [one.outcome for one in found if isinstance(one, Answer)] == ["reply"] * 8
    assert second.at - first.at >= 0.4


def test_one_burst_makes_one_cut(clients):
    """Sixteen calls in flight are all told to wait: that is one congestion, not sixteen."""
    gate = threading.Barrier(16, timeout=10)
    storm = threading.Event()

    def script(number, received):
        if not storm.is_set():
            return completion()
        try:
            gate.wait()
        except threading.BrokenBarrierError:
            return completion()
        return error(429, headers={"retry-after-ms": "50"})

    with ScriptedTeacher(script) as server:
        client = clients(server, config={"limits": LIMITED})
        outcomes(client, 400, threads=16)
        assert client.state()["concurrency"] == 16
        storm.set()
        burst = [threading.Thread(target=client.ask, args=(REQUEST, lambda upper_bound: None)) for _ in range(16)]
        for thread in burst:
            thread.start()
        while client.state()["waits"] < 16:
            time.sleep(0.005)
        assert client.state()["concurrency"] == 11
        gate.abort()
        for thread in burst:
            thread.join()


def test_a_long_wait_is_reported_as_parking_and_its_end_too(clients, monkeypatch):
    monkeypatch.setattr("medkd.teacher.pacing.PARK_SECONDS", 0.1)
    parked: list[float | None] = []
    with ScriptedTeacher([error(429, headers={"retry-after-ms": "300"}), completion()]) as server:
        started = time.time()
        clients(server, on_park=parked.append).ask(REQUEST, lambda upper_bound: None)
    assert parked[1:] == [None]
    assert parked[0] is not None and 0.3 <= parked[0] - started < 5


def test_a_wait_longer_than_allowed_is_left_to_a_human(clients):
    with ScriptedTeacher([error(429, headers={"retry-after": "7200"})]) as server:
        client = clients(server, max_park_seconds=3600)
        with pytest.raises(RefusedError, match=r"orders 2\.. h of waiting, more than the 1\.0 h allowed"):
            client.ask(REQUEST, lambda upper_bound: None)


@pytest.mark.parametrize("first", [error(429, headers={"retry-after": "3600"}), Pause(0)], ids=["while parked", "in between"])
def test_a_stopping_run_is_noticed_at_once_while_waiting(clients, first):
    stop = threading.Event()
    with ScriptedTeacher([first if isinstance(first, bytes) else error(500)]) as server:
        client = clients(server, stop=stop, max_attempts=10**6)
        problems: list[BaseException] = []

        def work() -> None:
            try:
                client.ask(REQUEST, lambda upper_bound: None)
            except BaseException as problem:
                problems.append(problem)

        thread = threading.Thread(target=work)
        thread.start()
        while not server.requests:
            time.sleep(0.01)
        stop.set()
        thread.join(5)
        assert not thread.is_alive()
    assert [type(problem) for problem in problems] == [StoppedError]


def test_a_call_in_flight_at_the_stop_ends_well(clients):
    stop = threading.Event()

    def script(number, received):
        stop.set()
        return [Pause(0.2), completion("late but good")]

    with ScriptedTeacher(script) as server:
        client = clients(server, stop=stop)
        assert client.ask(REQUEST, lambda upper_bound: None).outcome == "reply"
        with pytest.raises(StoppedError):
            client.ask(REQUEST, lambda upper_bound: None)


# --- rates --------------------------------------------------------------------------------------------------------------


def test_concurrency_starts_at_four_and_grows_to_its_share_of_the_cap(clients):
    with ScriptedTeacher([[Pause(0.03), completion()]]) as server:
        client = clients(server, config={"limits": Limits(max_concurrency=32)}, share=4)
        assert client.state()["concurrency"] == 4
        outcomes(client, 120, threads=16)
        assert client.state()["concurrency"] == server.peak == 8


def test_a_rate_of_requests_is_kept(clients):
    with ScriptedTeacher([completion()]) as server:
        client = clients(server, config={"limits": Limits(requests_per_minute=240, max_concurrency=16)})
        started = time.monotonic()
        outcomes(client, 26, threads=8)  # 20 at once, then 4 a second
        last = server.requests[-1].at - started
    assert last >= 1.0


def test_a_rate_of_tokens_is_kept_and_what_was_not_used_is_given_back(clients):
    small = completion(usage={"prompt_tokens": 10, "completion_tokens": 10})
    limits = Limits(tokens_per_minute=12_000, max_concurrency=16)  # the bucket holds 1,000
    with ScriptedTeacher([small]) as server:
        client = clients(server, config={"limits": limits})
        for _ in range(40):  # each reserves about 100 and uses 20: kept reserved, the last would come after 15 seconds
            client.ask(REQUEST, lambda upper_bound: None)
        assert server.requests[-1].at - server.requests[0].at < 7.0
    large = completion(usage={"prompt_tokens": 10, "completion_tokens": 490})
    with ScriptedTeacher([large]) as server:
        client = clients(server, config={"limits": limits})
        for _ in range(4):
            client.ask(REQUEST, lambda upper_bound: None)
        assert server.requests[-1].at - server.requests[0].at > 2.0


# --- a teacher in trouble -----------------------------------------------------------------------------------------------


def test_twenty_failures_in_a_row_across_records_end_it(clients):
    with ScriptedTeacher([error(500)]) as server:
        client = clients(server, config={"limits": LIMITED})
        found = outcomes(client, 200, threads=16)
        assert len(server.requests) < 100
    assert any(isinstance(one, UnreachableError) and "20 calls failed in a row" in str(one) for one in found)
    rejected = [one for one in found if isinstance(one, Answer)]
    assert len(rejected) < 5


def test_failures_between_good_answers_never_add_up(clients):
    with ScriptedTeacher(lambda number, received: completion() if number % 2 else error(500)) as server:
        client = clients(server)
        assert [client.ask(REQUEST, lambda upper_bound: None).outcome for _ in range(30)] == ["reply"] * 30


def test_an_outage_costs_no_record_its_attempts(clients, monkeypatch):
    """Calls fail for a while, several times more often than records have attempts; then the teacher is back."""
    # Long enough that all six failures are known before the first of their records is tried again, on a busy machine, too.
    monkeypatch.setattr(rates, "MIN_BACKOFF", 0.3)
    monkeypatch.setattr(rates, "MAX_BACKOFF", 0.3)
    at_once = threading.Barrier(6, timeout=5)

    def script(number, received):
        if 60 <= number < 66:
            at_once.wait()
        return error(502) if 60 <= number < 78 else completion()

    with ScriptedTeacher(script) as server:
        found = outcomes(clients(server, config={"limits": LIMITED}, max_attempts=2), 120, threads=16)
    assert [one.outcome for one in found if isinstance(one, Answer)] == ["reply"] * 120


def test_a_record_that_alone_fails_is_given_up_while_others_are_answered(clients):
    poison = Request(messages=(Message("user", "Poison"),), reply_limit=100)
    with ScriptedTeacher(lambda number, received: error(500) if b"Poison" in received.body else completion()) as server:
        client = clients(server)
        for _ in range(3):
            assert client.ask(poison, lambda upper_bound: None).reason == "attempts_exhausted"
            assert client.ask(REQUEST, lambda upper_bound: None).outcome == "reply"


def test_a_teacher_that_only_says_wait_without_a_hint_counts_as_unreachable(clients):
    with ScriptedTeacher([error(503, message="Loading model")]) as server:
        client = clients(server, unreachable_seconds=0.3)
        with pytest.raises(UnreachableError, match="check that it is up and reachable"):
            client.ask(REQUEST, lambda upper_bound: None)


def test_a_teacher_that_needs_time_to_load_is_waited_for(clients):
    found, _, _ = asked(clients, [error(503, message="Loading model")] * 30 + [completion()])
    assert (found.outcome, found.attempts) == ("reply", 1)


# --- first call, closing ------------------------------------------------------------------------------------------------


def test_a_probe_is_small_and_otherwise_like_a_real_call(clients):
    big = Request(messages=REQUEST.messages, reply_limit=5000, temperature=0.3, seed=1)
    with ScriptedTeacher([completion("{", "length")]) as server:
        assert clients(server).probe(big).reason == "length"
        fields = server.requests[0].json
    assert fields.pop("max_tokens") < 1000
    assert (fields["temperature"], fields["seed"], fields["model"]) == (0.3, 1, "teacher-1")


@pytest.mark.parametrize(
    ("entry", "kind"), [(error(422), ConfigError), (error(500), UnreachableError), (error(401), RefusedError)], ids=str
)
def test_a_probe_that_fails_is_an_error(clients, entry, kind):
    with ScriptedTeacher([entry]) as server, pytest.raises(kind):
        clients(server).probe(REQUEST)


def test_a_server_without_a_model_list_has_none(clients):
    with ScriptedTeacher([answer(404)]) as server:
        assert clients(server).models() == []


def test_a_server_that_fails_to_list_its_models_is_not_taken_for_one_without(clients):
    with ScriptedTeacher([error(500)]) as server, pytest.raises(UnreachableError, match=r"does not list its models \(HTTP 500\)"):
        clients(server).models()


def test_closing_releases_threads_that_wait(clients):
    with ScriptedTeacher([error(429, headers={"retry-after": "3600"})]) as server:
        client = clients(server)
        found: list[Answer | MedkdError] = []
        thread = threading.Thread(target=lambda: found.extend(outcomes(client, 1, threads=1)))
        thread.start()
        while not server.requests:
            time.sleep(0.01)
        client.close()
        thread.join(5)
    assert isinstance(found[0], StoppedError)


# --- secrets ------------------------------------------------------------------------------------------------------------


def echo_of_the_key(number, received):
    body = {"error": {"message": f"Incorrect API key provided: {KEY}", "param": KEY, "code": KEY, "type": f"x-{KEY[:12]}"}}
    return answer([401, 400, 500, 422][number % 4], body, {"x-request-id": "r"})


@pytest.mark.parametrize(
    ("auth", "header"),
    [("bearer", ("authorization", f"Bearer {KEY}")), ("x-api-key", ("x-api-key", KEY))],
    ids=["bearer", "x-api-key"],
)
def test_the_key_is_sent_stripped_and_never_shown(clients, caplog, monkeypatch, auth, header):
    monkeypatch.setattr(logging.getLogger("medkd"), "propagate", True)
    caplog.set_level(logging.DEBUG)
    shown: list[str] = []
    for script in (echo_of_the_key, [RESET], [completion()], lambda number, received: echo_of_the_key(number + 1, received)):
        with ScriptedTeacher(script) as server:
            client = clients(server, api_key=f" {KEY}\r\n", config={"auth": auth, "api_key_env": "TEACHER_KEY"})
            try:
                shown.append(repr(client.ask(REQUEST, lambda upper_bound: None)))
            except MedkdError as problem:
                chain = [problem, problem.__cause__, problem.__context__]
                shown.append("".join(traceback.format_exception(problem)) + repr(chain))
            assert server.requests[0].headers[header[0]] == header[1]
    shown += [record.getMessage() + repr(record.__dict__) for record in caplog.records]
    assert any("teacher_call" in text for text in shown)
    assert not any("canary" in text or "0123456789" in text for text in shown)
    assert not any("Question?" in text for text in shown)


@pytest.mark.parametrize("key", ["", None, "  \n"])
def test_a_missing_key_is_named_by_its_variable(key):
    config = teacher(auth="bearer", api_key_env="TEACHER_KEY")
    with pytest.raises(ConfigError, match="no API key; set TEACHER_KEY"):
        TeacherClient(config, api_key=key, stop=threading.Event())


@pytest.mark.parametrize("key", ["sk-canary\nsecond", "sk canary", "sk-canary-ü", "sk-canary\x00"])
def test_a_key_that_no_header_can_hold_is_refused_without_showing_it(key):
    config = teacher(auth="bearer", api_key_env="TEACHER_KEY")
    with pytest.raises(ConfigError, match="TEACHER_KEY has blanks or special characters") as caught:
        TeacherClient(config, api_key=key, stop=threading.Event())
    assert "canary" not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize(
    "url",
    [
        "https://api.example.com/v1",
        "http://localhost:8000/v1",
        "http://127.0.0.1:8000/v1",
        "http://[::1]:8000/v1",
        "http://10.1.2.3/v1",
        "http://192.168.0.4:8000",
        "http://vllm:8000/v1",
        "http://vllm.models.svc:8000/v1",
        "http://vllm.models.svc.cluster.local/v1",
    ],
)
def test_a_key_goes_over_https_or_stays_in_the_cluster(url):
    config = teacher(base_url=url, auth="bearer", api_key_env="K")
    TeacherClient(config, api_key=KEY, stop=threading.Event()).close()


@pytest.mark.parametrize(
    "url", ["http://api.example.com/v1", "http://8.8.8.8/v1", "http://svc.example.com", "http://evil.svc.example.com/v1"]
)
def test_a_key_is_not_sent_in_the_clear_to_the_world(url):
    with pytest.raises(ConfigError, match="expected https://"):
        TeacherClient(teacher(base_url=url, auth="bearer", api_key_env="K"), api_key=KEY, stop=threading.Event())
    TeacherClient(teacher(base_url=url), api_key=None, stop=threading.Event()).close()


@pytest.mark.parametrize(
    "url", ["http://", "http://host:port/v1", "http://[::1/v1", "https://user:secret@host/v1", "https://host/v1?key=secret"]
)
def test_an_address_that_cannot_work_is_refused_at_once(url):
    with pytest.raises(ConfigError, match="base_url") as caught:
        # Past the configuration's own checks, as a flag may bring it.
        TeacherClient(teacher().model_copy(update={"base_url": url}), api_key=None, stop=threading.Event())
    assert "secret" not in str(caught.value)


def test_a_missing_ca_bundle_is_named():
    with pytest.raises(ConfigError, match=r"CA bundle: got /no/such\.pem"):
        TeacherClient(teacher(), api_key=None, stop=threading.Event(), ca_bundle="/no/such.pem")


# --- the other protocol -------------------------------------------------------------------------------------------------


def test_an_anthropic_teacher_is_asked_its_own_way(clients):
    body = {
        "id": "msg_1",
        "model": "served-2",
        "content": [{"type": "thinking", "thinking": "hm"}, {"type": "text", "text": "Doctor: Hi"}],
        "stop_reason": "end_turn",
        "usage": {"input_tokens": 100, "cache_read_input_tokens": 900, "cache_creation_input_tokens": 0, "output_tokens": 50},
    }
    config = {
        "protocol": "anthropic",
        "structured_output": "output_config",
        "auth": "x-api-key",
        "api_key_env": "K",
        "protocol_version": "2023-06-01",
        "prices": Prices(input=1.0, output=5.0, cached_input=0.1),
    }
    found, _, server = asked(clients, [answer(200, body, {"request-id": "req_9"})], config=config, api_key=KEY)
    assert found.reply is not None and (found.reply.text, found.reply.request_id) == ("Doctor: Hi", "req_9")
    assert found.cost_usd == pytest.approx((100 * 1.0 + 900 * 0.1 + 50 * 5.0) / 1e6)
    received = server.requests[0]
    assert (received.path, received.headers["anthropic-version"]) == ("/v1/messages", "2023-06-01")
    assert json.loads(received.body)["messages"] == [{"role": "user", "content": "Question?"}]


def test_a_prompt_that_was_cut_silently_is_noticed(clients, caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("medkd"), "propagate", True)
    long = Request(messages=(Message("user", "word " * 4000),), reply_limit=100)
    found, _, _ = asked(clients, [completion()], request=long)
    assert (found.outcome, found.reason, found.cost_usd) == ("reject", "prompt_cut", pytest.approx(0.002))
    assert "teacher_prompt_cut" in caplog.text
    caplog.clear()
    whole = answer(200, completion_body(usage={"prompt_tokens": 4000, "completion_tokens": 1}))
    assert asked(clients, [whole], request=long)[0].outcome == "reply"
    assert asked(clients, [completion()], request=long, config={"min_tokens_per_word": 0})[0].outcome == "reply"
    assert "teacher_prompt_cut" not in caplog.text


def test_a_server_that_cuts_every_prompt_is_stopped_with_the_setting_to_raise(clients):
    long = Request(messages=(Message("user", "word " * 4000),), reply_limit=100)
    with ScriptedTeacher([completion()]) as server:
        client = clients(server)
        with pytest.raises(ConfigError, match=r"cuts prompts .* raise its context length .* min_tokens_per_word"):
            for _ in range(5):
                client.ask(long, lambda upper_bound: None)
        assert len(server.requests) == 5


# --- gateways -----------------------------------------------------------------------------------------------------------


def test_a_gateway_gets_its_tags_and_says_what_a_call_cost(clients):
    config = {"extra_headers": {"x-litellm-tags": "medkd,gout"}, "cost_header": "X-LiteLLM-Response-Cost"}
    entry = answer(200, completion_body(), {"x-litellm-response-cost": "0.0123"})
    found, _, server = asked(clients, [entry], config=config)
    assert server.requests[0].headers["x-litellm-tags"] == "medkd,gout"
    assert (found.cost_usd, found.possibly_usd) == (0.0123, 0.0)


@pytest.mark.parametrize("said", ["None", "nan", "-1", "0", "inf", ""])
def test_a_gateway_that_does_not_know_the_cost_leaves_it_to_the_prices(clients, said):
    entry = answer(200, completion_body(), {"x-cost": said})
    assert asked(clients, [entry], config={"cost_header": "x-cost"})[0].cost_usd == pytest.approx(0.002)


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (400, {"message": "Budget has been exceeded! Current cost: 2, Max budget: 1", "type": "budget_exceeded", "code": "400"}),
        (429, {"message": "Budget has been exceeded! Current cost: 2", "type": "None", "param": "None", "code": "429"}),
        (429, {"message": "Max budget limit reached.", "type": "None", "param": "None", "code": "429"}),
        (403, {"message": "over", "code": "key_budget_exceeded"}),
    ],
)
def test_a_gateways_own_budget_is_money(clients, status, body):
    with ScriptedTeacher([answer(status, {"error": body})]) as server, pytest.raises(RefusedError, match="money or spending"):
        clients(server).ask(REQUEST, lambda upper_bound: None)


@pytest.mark.parametrize(
    "message",
    [
        "No deployments available for selected model, Try again in 0.05 seconds. Passed model=teacher-1",
        'TensorZero rate limit exceeded for `token` resource.\nScope: tag_key="user"\nRequested: 1009\nAvailable: 2',
        "litellm.RateLimitError: Crossed TPM / RPM / Max Parallel Request Limit. Hit RPM Limit",
    ],
)
def test_a_gateways_own_rate_limits_are_waited_for(clients, message):
    entry = answer(429, {"error": {"message": message, "type": "None", "param": "None", "code": "429"}})
    found, _, server = asked(clients, [entry, completion()])
    assert (found.outcome, found.attempts, len(server.requests)) == ("reply", 1, 2)


# --- what headers say of the limits -------------------------------------------------------------------------------------


def test_a_limit_that_only_headers_tell_is_kept_in_this_processs_share(clients):
    """240 a minute for two processes: 10 at once, then 2 a second."""
    told = answer(200, completion_body(), {"x-ratelimit-limit-requests": "240", "x-ratelimit-remaining-requests": "239"})
    with ScriptedTeacher([told]) as server:
        client = clients(server, share=2)
        for _ in range(14):
            client.ask(REQUEST, lambda upper_bound: None)
        assert server.requests[-1].at - server.requests[0].at >= 1.0


def test_what_remains_of_a_limit_slows_the_calls_before_the_teacher_has_to(clients):
    def script(number, received):
        left = "0" if number == 3 else "100"
        return answer(200, completion_body(), {"x-ratelimit-limit-requests": "120", "x-ratelimit-remaining-requests": left})

    with ScriptedTeacher(script) as server:
        client = clients(server, config={"limits": Limits(requests_per_minute=120, max_concurrency=1)})
        for _ in range(5):
            client.ask(REQUEST, lambda upper_bound: None)
        assert server.requests[4].at - server.requests[3].at >= 0.4


def test_replies_that_have_a_rate_of_their_own_are_paid_afterwards(clients):
    limits = Limits(output_tokens_per_minute=12_000, max_concurrency=4)  # the bucket holds 1,000, a reply takes 500
    with ScriptedTeacher([completion()]) as server:
        client = clients(server, config={"limits": limits})
        for _ in range(4):
            client.ask(REQUEST, lambda upper_bound: None)
        assert server.requests[3].at - server.requests[0].at >= 2.0


# --- echoes -------------------------------------------------------------------------------------------------------------


def test_keys_and_prompt_words_echoed_as_names_are_dropped(clients, caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("medkd"), "propagate", True)
    caplog.set_level(logging.DEBUG)
    request = Request(messages=(Message("user", "Frau Zauberwort-Canary has gout"),), reply_limit=100)
    body = completion_body(model=f"m-{KEY[3:14]}", id="zauberwort-canary", system_fingerprint=KEY)
    config = {"auth": "bearer", "api_key_env": "K"}
    echo = answer(200, body, {"x-request-id": "zauberwort-canary"})
    found, _, _ = asked(clients, [echo], request=request, api_key=KEY, config=config)
    assert found.reply is not None
    assert (found.reply.served_model, found.reply.request_id, found.reply.fingerprint) == ("", "", "")
    refusal = {"error": {"message": "'zauberwort' is not allowed", "code": "zauberwort", "param": "zauberwort-canary.x"}}
    with ScriptedTeacher([answer(404, refusal)]) as server, pytest.raises(ConfigError) as caught:
        clients(server, api_key=KEY, config=config).ask(request, lambda upper_bound: None)
    shown = str(caught.value) + caplog.text + repr([record.__dict__ for record in caplog.records])
    assert "zauberwort" not in shown.lower() and "canary" not in shown.lower()
