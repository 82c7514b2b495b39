"""What must be refused is refused on a real cluster: by the right exit code, in words, and nothing runs after it.

All releases stand side by side in one namespace with one S3 server and one teacher that wants a key.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from typing import Any

import pytest

from medkd.cluster import names
from medkd.stages import ownership
from medkd.store import layout
from tests.chart.rendering import CHART
from tests.cluster.tools import Object, Space, apply_dev, new_space, run, wait_until

pytestmark = pytest.mark.cluster

# Secrets that must never be seen again. Only the teacher knows the first.
RIGHT_KEY, WRONG_KEY = "canary-right-7f3a", "canary-wrong-91bc"
PATIENCE_SECONDS = 300
"""Said within a minute on a machine that has nothing else to do; this bounds a test on one that has."""

NO_MODEL = {
    "models": {"overrides": {"student_models": {"mine": {"model_name": "org/no-such-model"}}}},
    "student": {"name": "mine"},
}
PRICES = {"models": {"overrides": {"teacher_models": {"simulator": {"prices": {"input": 10.0, "output": 10.0}}}}}}
# Values, the exit code of stage plan, and what a person reads.
REFUSED: dict[str, tuple[dict[str, Any], int, tuple[str, ...]]] = {
    "wrong-key": ({"teacher": {"existingSecret": "wrong-key"}}, 77, ("key",)),
    "no-secret": ({"teacher": {"existingSecret": "not-there"}}, 78, ("no key", "CLINIC_KEY")),
    "read-only": ({"storage": {"existingSecret": "reader"}}, 77, ("no permission to write",)),
    "no-model": ({**NO_MODEL, "hub": {"offline": True}}, 78, ("org/no-such-model", "HF_HUB_OFFLINE")),
    "small-budget": ({**PRICES, "teacher": {"budgetUsd": 0.001}}, 77, ("--budget-usd: got 0.001", "Nothing has been paid")),
    "other-plan": ({}, 78, ("holds another plan", "seed")),
    "taken": ({}, 78, ("release:elsewhere/winter works here",)),
}
# Values, and what a person reads while the stage, or the driver itself, waits for ever.
STUCK: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "no-node": ({"plan": {"pod": {"nodeSelector": {"no": "such-node"}}}}, ("no node for the pod", "nodeSelector")),
    "no-image": (
        {"images": {"worker": {"digest": f"sha256:{64 * '0'}"}}},
        (f"@sha256:{64 * '0'} cannot be pulled", "imagePullSecrets"),
    ),
}


def merged(base: Any, more: Any) -> Any:
    if not (isinstance(base, dict) and isinstance(more, dict)):
        return more
    return {**base, **{key: merged(base.get(key), value) for key, value in more.items()}}


def small(space: Space, **more: Any) -> dict[str, Any]:
    """Values of a run that is over in seconds, asking the teacher that wants a key."""
    simulator = {"auth": "bearer", "api_key_env": "CLINIC_KEY"}
    base = {
        "plan": {"numSamples": 8, "numTopics": 2},
        "generate": {"shards": 1, "parallelism": 1},
        # A key goes over plain http only to names that say that they are of the cluster.
        "teacher": {"existingSecret": "clinic-key", "baseUrl": f"http://teacher.{space.name}.svc:8765/v1"},
        "models": {"overrides": {"teacher_models": {"simulator": simulator}}},
    }
    return dict(merged(base, more))


@pytest.fixture(scope="module")
def clinic(cluster: None) -> Iterator[Space]:
    """A namespace in which every release that must come to nothing has been installed."""
    with new_space(f"medkd-refusals-{int(time.time()) % 100000}") as space:
        apply_dev(space, teacher_flags=[f"--api-key={RIGHT_KEY}"])
        secret(space, "clinic-key", CLINIC_KEY=RIGHT_KEY)
        secret(space, "wrong-key", CLINIC_KEY=WRONG_KEY)
        secret(space, "reader", AWS_ACCESS_KEY_ID="reader", AWS_SECRET_ACCESS_KEY="development-only")
        space.store("other-plan").replace(layout.PLAN, json.dumps({"format": 1, "seed": 99}).encode())
        ownership.take(space.store("taken"), "release:elsewhere/winter")
        values = {name: values for name, (values, *_) in (REFUSED | STUCK).items()}
        with ThreadPoolExecutor(3) as pool:
            list(pool.map(lambda name: space.install(name, small(space, **values[name])), values))
        yield space
        # Its pod has no node. Kubernetes deletes such a pod with its Job, but keeps it, and the namespace, when both go at once.
        space.helm("uninstall", "no-node")


def secret(space: Space, name: str, **values: str) -> None:
    space.kubectl("create", "secret", "generic", name, *(f"--from-literal={key}={value}" for key, value in values.items()))


@pytest.mark.parametrize("release", REFUSED)
def test_a_refusal_ends_stage_plan_with_its_exit_code_in_words_and_nothing_after_it_runs(clinic: Space, release: str) -> None:
    _, code, words = REFUSED[release]
    plan = names.job_name(release, "plan")
    failed = wait_until(f"{plan} fails", lambda: clinic.condition(plan, "Failed"), PATIENCE_SECONDS, every=1)
    assert failed["reason"] == "PodFailurePolicy"
    assert f"exit code {code} " in failed["message"]
    driver = names.job_name(release, names.DRIVER)
    wait_until(f"{driver} ends", lambda: clinic.condition(driver, "Failed"), PATIENCE_SECONDS, every=1)
    screen = clinic.medkd("status", release).stdout
    print(f"{release}: failed {seconds_since_install(clinic, plan, failed):.0f} s after it was installed\n{screen}")
    for word in (*words, "FAILED", "kubectl medkd retry"):
        assert word in screen
    for stage in names.STAGES[1:]:
        later = clinic.get("job", names.job_name(release, stage))
        assert later and later["spec"]["suspend"] and names.ANNOTATION_GATE in later["metadata"]["annotations"]
    assert clinic.medkd("wait", release, "--timeout", "60", check=False).returncode == 1


@pytest.mark.parametrize("release", STUCK)
def test_a_pod_that_cannot_start_is_said_in_words(clinic: Space, release: str) -> None:
    words = STUCK[release][1]

    def said() -> str | None:
        screen = clinic.medkd("status", release).stdout
        return screen if all(word in screen for word in words) else None

    print(wait_until(f"status of {release} says {words}", said, PATIENCE_SECONDS, every=2))


def test_a_missing_secret_is_created_and_a_retry_goes_on(clinic: Space) -> None:
    plan = names.job_name("no-secret", "plan")
    wait_until(f"{plan} fails", lambda: clinic.condition(plan, "Failed"), PATIENCE_SECONDS, every=1)
    assert "no key" in clinic.medkd("logs", "no-secret").stdout
    before = clinic.teacher("/stats")["billed_total"]
    assert before == 0, "no release that was refused has asked for anything that costs"
    secret(clinic, "not-there", CLINIC_KEY=RIGHT_KEY)
    said = clinic.medkd("retry", "no-secret")
    assert "starting again: plan, driver" in said.stderr
    prepare = names.job_name("no-secret", "prepare")
    wait_until(f"{prepare} is complete", lambda: clinic.condition(prepare, "Complete"), PATIENCE_SECONDS, every=1)
    assert clinic.teacher("/stats")["billed_total"] >= 16
    clinic.helm("uninstall", "no-secret")


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"storage": {"prefixx": "s3://a/b"}}, ("storage", "prefixx")),
        ({"student": {"name": "t6"}}, ('student.name: got "t6"', "tiny-t5")),
    ],
)
def test_wrong_values_are_refused_at_install_and_leave_nothing(
    clinic: Space, values: dict[str, Any], words: tuple[str, ...]
) -> None:
    refused = clinic.install("typo", small(clinic, **values), check=False)
    assert refused.returncode != 0
    for word in words:
        assert word in refused.stderr
    assert not clinic.list("jobs", f"{names.LABEL_RUN}=typo")


def test_an_upgrade_is_refused_and_says_what_to_do_instead(clinic: Space) -> None:
    refused = clinic.helm("upgrade", "taken", str(CHART), "--reuse-values", check=False)
    assert refused.returncode != 0
    assert "one release is one run" in refused.stderr and "helm uninstall taken" in refused.stderr


def test_no_key_is_ever_shown(clinic: Space) -> None:
    shown = [clinic.kubectl("get", "configmaps,events,jobs", "-o", "json").stdout]
    for pod in clinic.list("pods", names.LABEL_RUN):
        shown.append(clinic.kubectl("logs", pod["metadata"]["name"], check=False).stdout)
    for release in REFUSED | STUCK:
        shown += [clinic.helm("get", what, release, check=False).stdout for what in ("values", "manifest", "notes")]
    text = "\n".join(shown)
    assert len(text) > 10_000
    for canary in (RIGHT_KEY, WRONG_KEY, "development-only"):
        assert canary not in text


def test_a_driver_has_its_rights_and_nothing_else(clinic: Space) -> None:
    driver, worker = (rights(clinic, f"taken-{account}") for account in ("driver", "worker"))
    jobs = " ".join(sorted(names.job_name("taken", stage) for stage in names.STAGES))
    assert driver - worker == {
        ("jobs.batch", jobs, "get list patch watch"),
        ("configmaps", "taken-status", "get patch"),
        ("events", "", "create patch"),
        ("events.events.k8s.io", "", "create patch"),
        ("pods", "", "get list watch"),
    }
    assert worker == rights(clinic, "default"), "a worker's account has no right of its own"


def rights(space: Space, account: str) -> set[tuple[str, str, str]]:
    """Resources, names and verbs that an account has in the namespace, as the API server itself says."""
    review = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectRulesReview",
        "spec": {"namespace": space.name},
    }
    answer = run(
        ["kubectl", "create", "--validate=false", "-f", "-", "-o", "json", f"--as=system:serviceaccount:{space.name}:{account}"],
        text=json.dumps(review),
    )
    return {
        (f"{resource}.{group}".rstrip("."), " ".join(sorted(rule.get("resourceNames") or [])), " ".join(sorted(rule["verbs"])))
        for rule in json.loads(answer.stdout)["status"]["resourceRules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
    }


def test_no_worker_has_a_token_and_the_namespace_takes_no_other_pods(clinic: Space) -> None:
    pods = clinic.list("pods", names.LABEL_STAGE)
    assert pods
    for pod in pods:
        assert not token_volumes(pod), pod["metadata"]["name"]
    assert all(token_volumes(pod) for pod in clinic.list("pods", "app.kubernetes.io/component=driver"))
    loose = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "loose"},
        "spec": {"hostNetwork": True, "containers": [{"name": "main", "image": "medkd-worker:dev"}]},
    }
    refused = clinic.kubectl("create", "-f", "-", text=json.dumps(loose), check=False)
    assert "violates PodSecurity" in refused.stderr


def token_volumes(pod: Object) -> list[Object]:
    return [
        volume
        for volume in pod["spec"].get("volumes") or []
        if any("serviceAccountToken" in source for source in volume.get("projected", {}).get("sources", []))
    ]


def seconds_since_install(space: Space, job: str, condition: Object) -> float:
    created = (space.get("job", job) or {})["metadata"]["creationTimestamp"]
    return moment(condition["lastTransitionTime"]) - moment(created)


def moment(text: str) -> float:
    return datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()
