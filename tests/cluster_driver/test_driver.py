"""The driver through the real client over real HTTP: what it releases, when, what it says, and how it leaves."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from medkd.cluster import names
from medkd.errors import ConfigError, StoppedError, UnreachableError
from medkd.stages import control, gaps, ownership
from medkd.stages.control import Control
from medkd.store import layout
from medkd.store.files import Store, open_store
from tests.cluster_driver.conftest import (
    FULL,
    RUN,
    STUDENT,
    driving,
    is_released,
    run_stage,
    until,
    write_plan,
    write_progress,
    write_shard,
    write_stage,
)
from tests.cluster_driver.fake_api import FakeApi, ended, pod

pytestmark = [pytest.mark.driver, pytest.mark.timeout(300)]


def job_of(stage: str) -> str:
    return names.job_name(FULL, stage)


def run_up_to(api: FakeApi, store: Store, stage: str, shards: int = 2) -> None:
    for earlier in names.STAGES[: names.STAGES.index(stage)]:
        run_stage(api, store, earlier, shards)
    until(lambda: is_released(api, stage))


def test_stages_are_released_one_after_the_other_when_the_one_before_stands(api: FakeApi, prefix: Store) -> None:
    api.install(FULL, RUN)
    with driving(api, prefix) as driver:
        for stage, following in zip(names.STAGES, [*names.STAGES[1:], None], strict=True):
            if stage == "evaluate":
                prefix.replace(layout.student_evaluation(STUDENT), b'{"bars": {"passed": true, "checks": []}}')
            run_stage(api, prefix, stage)
            if following:
                until(lambda following=following: is_released(api, following))
                assert [later for later in names.STAGES if is_released(api, later)][-1] == following
        assert driver.ends() == 0
        board = driver.board
    assert board["phase"] == "complete" and board["verdict"] == "no bar set"
    assert [stage["phase"] for stage in board["stages"]] == ["succeeded"] * 5
    assert board["samples"] == {"total": 20, "accepted": 20, "short": 0, "rejected": 2}
    assert board["money"]["spent_usd"] == pytest.approx(0.5)
    reasons = [reason for _, reason in api.events()]
    assert reasons.count("StageReleased") == reasons.count("StageSucceeded") == 5 and reasons[-1] == "RunComplete"
    assert ownership.owner(prefix) is None, "the prefix is free for whoever comes next"


def test_a_driver_ended_at_any_time_is_followed_by_one_that_goes_on_and_repeats_nothing(api: FakeApi, prefix: Store) -> None:
    api.install(FULL, RUN)
    for stage in names.STAGES:
        with driving(api, prefix) as driver:
            run_stage(api, prefix, stage)
            until(lambda stage=stage: (job_of(stage), "StageSucceeded") in api.events())
            driver.stop.set()
            if stage != "evaluate":
                with pytest.raises(StoppedError):
                    driver.ends()
    with driving(api, prefix) as driver:
        assert driver.ends() == 0
    assert len(api.events()) == len(set(api.events())) == 11
    assert [note["reason"] for note in api.board(FULL)["notes"]].count("StageReleased") == 5


def test_a_stage_that_ended_without_its_files_is_not_done(api: FakeApi, prefix: Store) -> None:
    api.install(FULL, RUN)
    with driving(api, prefix) as driver:
        run_up_to(api, prefix, "train")
        api.start(job_of("train"))
        write_stage(prefix, "train")
        prefix.delete(f"students/{STUDENT}/train/data.bin")
        api.complete(job_of("train"))
        assert driver.ends() == 2
        assert not is_released(api, "evaluate")
        assert driver.board["phase"] == "failed"
        assert "students/tiny-t5/train/data.bin is not as its manifest says" in driver.board["failure"]


def test_an_unreadable_manifest_ends_the_run_in_words(api: FakeApi, prefix: Store) -> None:
    api.install(FULL, RUN)
    with driving(api, prefix) as driver:
        run_up_to(api, prefix, "prepare")
        write_stage(prefix, "prepare")
        prefix.replace(layout.DATASET_MANIFEST, b"torn")
        api.complete(job_of("prepare"))
        assert driver.ends() == 2
        assert "dataset/manifest.json: not a manifest" in driver.board["failure"]


def test_a_failed_stage_ends_the_run_with_the_words_of_its_process(api: FakeApi, prefix: Store) -> None:
    api.install(FULL, RUN)
    said = "starting\nmedkd: teacher deepseek: no key; mount it as /var/run/medkd/secrets/DEEPSEEK_API_KEY\n"
    with driving(api, prefix) as driver:
        until(lambda: is_released(api, "plan"))
        api.start(job_of("plan"))
        api.create("pods", pod(job_of("plan"), 0, **ended(78, said)))
        api.set_status(
            job_of("plan"), failed=1, conditions=[{"type": "FailureTarget", "status": "True", "reason": "PodFailurePolicy"}]
        )
        until(lambda: any("no key" in problem["what"] for problem in driver.board.get("problems", [])))
        api.fail(job_of("plan"), "PodFailurePolicy", "exit code 78", failed=1)
        assert driver.ends() == 2
        assert driver.board["failure"].startswith("stage plan failed: teacher deepseek: no key; mount it as")
        assert not is_released(api, "generate")
    assert api.event_texts("StageFailed") == [driver.board["failure"]]


def test_allowed_gaps_are_written_down_said_and_gone_on_from(api: FakeApi, prefix: Store) -> None:
    api.install(FULL, RUN, shards=4)
    with driving(api, prefix, max_failed_shards=1) as driver:
        run_up_to(api, prefix, "generate", 4)
        api.start(job_of("generate"))
        for shard in (0, 1, 3):
            write_shard(prefix, shard)
        api.fail(job_of("generate"), "FailedIndexes", completedIndexes="0-1,3", failedIndexes="2", failed=1, succeeded=3)
        until(lambda: is_released(api, "prepare"))
        assert gaps.recorded(prefix) == {2}
        assert "without shards 2" in api.event_texts("GapsAccepted")[0]
        until(lambda: driver.board.get("gaps") == "2")
        assert driver.phase("generate") == "succeeded"


def test_one_gap_too_many_ends_the_run(api: FakeApi, prefix: Store) -> None:
    api.install(FULL, RUN, shards=4)
    with driving(api, prefix, max_failed_shards=1) as driver:
        run_up_to(api, prefix, "generate", 4)
        write_shard(prefix, 0)
        write_shard(prefix, 3)
        api.fail(job_of("generate"), "FailedIndexes", completedIndexes="0,3", failedIndexes="1-2", failed=2, succeeded=2)
        assert driver.ends() == 2
        assert "2 shards failed, 1 may" in driver.board["failure"]
        assert not is_released(api, "prepare")
        assert gaps.recorded(prefix) == frozenset()


def test_a_stopped_generate_is_no_gap_however_many_may_fail(api: FakeApi, prefix: Store) -> None:
    api.install(FULL, RUN, shards=4)
    with driving(api, prefix, max_failed_shards=3) as driver:
        run_up_to(api, prefix, "generate", 4)
        api.fail(job_of("generate"), "MaxFailedIndexesExceeded", failedIndexes="1", failed=1)
        assert driver.ends() == 2


def test_with_a_queue_the_gate_goes_and_the_queue_lets_the_stage_run_and_takes_it_back(api: FakeApi, prefix: Store) -> None:
    api.install(FULL, RUN, queue="team-a")
    with driving(api, prefix) as driver:
        until(lambda: names.ANNOTATION_GATE not in api.job(job_of("plan"))["metadata"]["annotations"])
        assert api.job(job_of("plan"))["spec"]["suspend"] is True, "only the queue lets it run"
        until(lambda: driver.phase("plan") == "queued")
        api.suspend(job_of("plan"), False)
        api.start(job_of("plan"))
        until(lambda: driver.phase("plan") == "running")
        api.suspend(job_of("plan"), True)
        until(lambda: driver.phase("plan") == "queued")
        assert api.job(job_of("plan"))["spec"]["suspend"] is True
        api.suspend(job_of("plan"), False)
        write_plan(prefix)
        api.complete(job_of("plan"))
        until(lambda: (job_of("plan"), "StageSucceeded") in api.events())
    assert (job_of("plan"), "StageQueued") in api.events()


def test_for_a_queue_that_knows_no_gate_the_label_is_set_at_release(api: FakeApi, prefix: Store) -> None:
    api.install(FULL, RUN)
    with api.lock:
        api.objects["jobs", job_of("plan")]["metadata"]["annotations"][names.ANNOTATION_QUEUE] = "team-a"
    with driving(api, prefix, release_mode="label"):
        until(lambda: api.job(job_of("plan"))["metadata"]["labels"].get(names.LABEL_QUEUE) == "team-a")
        assert api.job(job_of("plan"))["spec"]["suspend"] is True


@pytest.mark.parametrize("status", [409, 422, 429, 500, 503])
def test_an_answer_that_passes_by_itself_is_asked_again(api: FakeApi, prefix: Store, status: int) -> None:
    api.install(FULL, RUN)
    api.answers += [("GET", job_of("plan"), status), ("PATCH", f"jobs/{job_of('plan')}", status)]
    with driving(api, prefix):
        until(lambda: is_released(api, "plan"))
    assert api.answers == []


def test_a_deleted_release_is_left_quietly(api: FakeApi, prefix: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("medkd.driver.loop.GONE_SECONDS", 1.0)
    api.install(FULL, RUN)
    with driving(api, prefix) as driver:
        run_up_to(api, prefix, "generate")
        api.uninstall()
        assert driver.ends() == 0
    assert ownership.owner(prefix) is None


def test_a_driver_told_to_stop_while_the_release_goes_away_leaves_as_if_done(api: FakeApi, prefix: Store) -> None:
    api.install(FULL, RUN)
    with driving(api, prefix) as driver:
        run_up_to(api, prefix, "generate")
        api.uninstall()
        driver.stop.set()
        assert driver.ends() == 0
    assert ownership.owner(prefix) is None


def test_a_job_that_is_replaced_is_not_taken_for_the_end(api: FakeApi, prefix: Store) -> None:
    api.install(FULL, RUN)
    with driving(api, prefix) as driver:
        run_up_to(api, prefix, "generate")
        job = api.job(job_of("generate"))
        api.delete("jobs", job_of("generate"))
        time.sleep(2.5)
        job["metadata"]["annotations"][names.ANNOTATION_GATE] = names.GATE
        api.create("jobs", {**job, "spec": {**job["spec"], "suspend": True}})
        until(lambda: is_released(api, "generate"))
        assert driver.code is None


def test_a_store_out_of_reach_is_said_and_holds_the_run_up_no_longer_than_it_lasts(
    api: FakeApi, prefix: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreachable(path: str) -> bytes:
        raise UnreachableError("store: no answer")

    api.install(FULL, RUN)
    with driving(api, prefix) as driver:
        until(lambda: is_released(api, "plan"))
        write_plan(prefix)
        with monkeypatch.context() as patch:
            patch.setattr(prefix, "read", unreachable)
            api.complete(job_of("plan"))
            until(lambda: any(problem["what"] == "store: no answer" for problem in driver.board.get("problems", [])))
            assert not is_released(api, "generate")
        until(lambda: is_released(api, "generate"))
        until(lambda: not driver.board["problems"])


def test_a_right_that_is_missing_ends_the_driver_in_words_after_a_while(
    api: FakeApi, prefix: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("medkd.driver.loop.REFUSED_SECONDS", 1.0)
    api.install(FULL, RUN)
    api.forbidden.add("jobs")
    with driving(api, prefix) as driver, pytest.raises(ConfigError, match="jobs is forbidden"):
        driver.ends()


def test_without_a_look_at_pods_the_driver_does_with_job_status(api: FakeApi, prefix: Store) -> None:
    api.install(FULL, RUN)
    api.forbidden.add("pods")
    with driving(api, prefix) as driver:
        until(lambda: is_released(api, "plan"))
        api.start(job_of("plan"), ready=0)
        api.fail(job_of("plan"), "PodFailurePolicy", "Container main failed with exit code 78")
        assert driver.ends() == 2
        assert "exit code 78" in driver.board["failure"]


def test_another_release_that_takes_the_prefix_over_ends_the_driver(
    api: FakeApi, prefix: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("medkd.driver.loop.BEAT_SECONDS", 0.5)
    monkeypatch.setattr("medkd.driver.loop.READ_SECONDS", 0.5)
    api.install(FULL, RUN)
    with driving(api, prefix) as driver:
        run_up_to(api, prefix, "generate")
        ownership.take(prefix, "release:other/run", take_over=True)
        with pytest.raises(ConfigError, match="release:other/run has taken this prefix over"):
            driver.ends()


def test_progress_is_published_as_board_annotation_and_metrics(
    api: FakeApi, prefix: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("medkd.cluster.publish.ANNOTATE_SECONDS", 0.5)
    api.install(FULL, RUN, shards=3)
    with driving(api, prefix) as driver:
        run_stage(api, prefix, "plan", 3)
        until(lambda: is_released(api, "generate"))
        api.start(job_of("generate"))
        write_shard(prefix, 0)
        write_progress(prefix, 1)
        write_progress(prefix, 2, state="parked", parked_until=time.time() + 4000)
        api.set_status(job_of("generate"), active=2, ready=2, succeeded=1, completedIndexes="0")
        until(lambda: driver.board.get("samples", {}).get("accepted") == 18)
        assert driver.board["shards"] == {"total": 3, "done": 1, "failed": 0, "active": 2, "parked": 1}
        assert driver.board["money"] == pytest.approx({"spent_usd": 0.45, "possibly_usd": 0.01, "estimate_usd": 1.0})
        until(lambda: any(problem["kind"] == "parked" for problem in driver.board["problems"]))
        until(lambda: names.ANNOTATION_PROGRESS in api.job(job_of("generate"))["metadata"]["annotations"])
        assert "18/20 samples, 1/3 shards" in api.job(job_of("generate"))["metadata"]["annotations"][names.ANNOTATION_PROGRESS]


def test_a_pilot_below_expectation_holds_the_run_until_somebody_approves(api: FakeApi, prefix: Store) -> None:
    api.install(FULL, RUN)
    with driving(api, prefix) as driver:
        run_stage(api, prefix, "plan")
        control.create_control(prefix, Control(state="pilot", pilot_samples=10))
        write_progress(prefix, 0, accepted=2, short=8)
        until(lambda: is_released(api, "generate"))
        api.start(job_of("generate"))
        until(lambda: driver.board.get("phase") == "held")
        assert control.read_control(prefix).state == "hold"
        assert any("kubectl medkd approve flu" in problem["do"] for problem in driver.board["problems"])
        assert "hold: pilot accepted 20% of 10 samples" in api.event_texts("PilotDecided")[0]
        with api.lock:
            api.objects["jobs", job_of("generate")]["metadata"]["annotations"][names.ANNOTATION_APPROVED] = "by somebody"
        until(lambda: control.read_control(prefix).state == "run")
        until(lambda: driver.board["phase"] == "running")


def test_many_shards_cost_few_requests_and_the_store_is_read_for_active_ones_only(api: FakeApi, tmp_path: Path) -> None:
    shards = 200
    reads: list[str] = []

    class Counting(type(open_store(str(tmp_path)))):  # type: ignore[misc]
        def read(self, path: str) -> bytes:
            reads.append(path)
            return super().read(path)

    opened = open_store(str(tmp_path / "run"))
    store = Counting(opened.url, opened.filesystem, opened.root)
    api.install(FULL, RUN, shards=shards)
    with driving(api, store) as driver:
        run_stage(api, store, "plan", shards)
        until(lambda: is_released(api, "generate"))
        for shard in range(shards):
            write_progress(store, shard)
        until(lambda: driver.board.get("samples", {}).get("accepted") == 4 * shards)
        reads.clear()
        for done in range(0, shards, 50):
            for shard in range(done, done + 50):
                write_shard(store, shard)
            active = min(4, shards - done - 50)
            api.set_status(
                job_of("generate"), active=active, ready=active, completedIndexes=f"0-{done + 49}", succeeded=done + 50
            )
            until(lambda done=done: driver.board["shards"].get("done") == done + 50)
        api.complete(job_of("generate"))
        until(lambda: is_released(api, "prepare"))
    assert max(reads.count(layout.shard_file(shard, "manifest.json")) for shard in range(shards)) == 1
    assert sum(path.endswith("progress.json") for path in reads) < 100
    assert sum(api.counts().values()) < 2 * shards
