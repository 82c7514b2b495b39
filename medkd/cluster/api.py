"""Access to the Kubernetes API: a run's Jobs, pods, status ConfigMap and Events as plain dictionaries.

Answers are taken as JSON and bodies sent as dictionaries, so that fields which this client's models do not know survive. What
passes by itself is tried again here: conflicts, throttling, a server that restarts. A 404 is an answer, not an error.
"""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable
from typing import Any

import kubernetes
from kubernetes.client.exceptions import ApiException
from urllib3.exceptions import HTTPError

from medkd.cluster import names
from medkd.errors import ConfigError, MedkdError, RefusedError, UnreachableError
from medkd.telemetry import event

Object = dict[str, Any]

_TIMEOUT = (5.0, 30.0)
_PASSING = (409, 422, 429, 500, 502, 503, 504)
_PAUSES = (0.2, 0.5, 1.0, 2.0, 4.0)


class Cluster:
    """One namespace seen with the rights of whoever connects. Safe to use from several threads.

    Methods raise RefusedError where the right is missing, UnreachableError where the server does not answer for several
    seconds, and MedkdError where it rejects a request.
    """

    def __init__(self, configuration: Any, namespace: str, stop: threading.Event, user_agent: str = "medkd") -> None:
        client = kubernetes.client.ApiClient(configuration)
        client.user_agent = user_agent
        self.namespace = namespace
        self._stop = stop
        self._batch = kubernetes.client.BatchV1Api(client)
        self._core = kubernetes.client.CoreV1Api(client)
        self._custom = kubernetes.client.CustomObjectsApi(client)

    # --- Jobs ---------------------------------------------------------------------------------------------------------

    def job(self, name: str) -> Object | None:
        """The Job, or None where there is none."""
        return self._read(lambda: self._batch.read_namespaced_job(name, self.namespace, **_RAW))

    def jobs(self, label_selector: str) -> list[Object]:
        """The Jobs with these labels."""
        return _items(self._do(lambda: self._batch.list_namespaced_job(self.namespace, label_selector=label_selector, **_RAW)))

    def patch_job(self, name: str, body: Object) -> Object | None:
        """Merge changes into a Job; None where there is none."""
        patch = {"field_manager": names.FIELD_MANAGER, **_RAW}
        return self._read(lambda: self._batch.patch_namespaced_job(name, self.namespace, body, **patch))

    def create_job(self, body: Object) -> None:
        """Create a Job from its manifest."""
        # Not through the client's model of a Job, which refuses the fields of newer servers.
        self._do(lambda: self._custom.create_namespaced_custom_object("batch", "v1", self.namespace, "jobs", body))

    def delete_job(self, name: str) -> None:
        """Ask for the end of a Job and its pods; it is gone when `job` says None."""
        self._read(lambda: self._batch.delete_namespaced_job(name, self.namespace, propagation_policy="Foreground", **_RAW))

    # --- pods ---------------------------------------------------------------------------------------------------------

    def unfinished_pods(self, label_selector: str, limit: int = 300) -> list[Object]:
        """Pods with these labels that have not succeeded, so many at most."""
        selection = {"label_selector": label_selector, "field_selector": "status.phase!=Succeeded", "limit": limit}
        return _items(self._do(lambda: self._core.list_namespaced_pod(self.namespace, **selection, **_RAW)))

    def pods(self, label_selector: str, limit: int = 500) -> list[Object]:
        """Pods with these labels, so many at most."""
        return _items(
            self._do(lambda: self._core.list_namespaced_pod(self.namespace, label_selector=label_selector, limit=limit, **_RAW))
        )

    def pod_log(self, name: str, last_lines: int) -> str:
        """The last lines that a pod's main container wrote; an empty text where it has not started."""
        more = {"container": names.CONTAINER, "tail_lines": last_lines, **_RAW}
        try:
            answer = self._do(lambda: self._core.read_namespaced_pod_log(name, self.namespace, **more), passing=())
        except _RejectedError:
            return ""
        return str(answer.data.decode(errors="replace"))

    # --- what the driver publishes ------------------------------------------------------------------------------------

    def config_map(self, name: str) -> Object | None:
        """The ConfigMap, or None where there is none."""
        return self._read(lambda: self._core.read_namespaced_config_map(name, self.namespace, **_RAW))

    def patch_config_map(self, name: str, data: dict[str, str]) -> None:
        """Replace these keys of a ConfigMap; nothing happens where there is none."""
        patch = {"field_manager": names.FIELD_MANAGER, **_RAW}
        self._read(lambda: self._core.patch_namespaced_config_map(name, self.namespace, {"data": data}, **patch))

    def create_event(self, body: Object) -> None:
        """Publish an Event; one of that name which is there already stands."""
        try:
            self._do(lambda: self._core.create_namespaced_event(self.namespace, body, **_RAW), passing=(429, 503))
        except _RejectedError as error:
            # 404: the namespace is being deleted, and nobody will read it.
            if error.status not in (404, 409):
                raise

    # --- one way through ----------------------------------------------------------------------------------------------

    def _read(self, call: Callable[[], Any]) -> Object | None:
        try:
            answer = self._do(call)
        except _RejectedError as error:
            if error.status == 404:
                return None
            raise
        found: Object = json.loads(answer.data)
        return found

    def _do(self, call: Callable[[], Any], passing: tuple[int, ...] = _PASSING) -> Any:
        for pause in (*_PAUSES, None):
            try:
                return call()
            except ApiException as error:
                failure = _failure(error)
                if error.status not in passing:
                    raise failure from error
            except (HTTPError, OSError) as error:
                failure = UnreachableError(f"Kubernetes API: no answer ({type(error).__name__})")
            if pause is None or self._stop.is_set():
                break
            event("Kubernetes API, trying again", level=logging.DEBUG, reason=str(failure), seconds=pause)
            self._stop.wait(pause)
        raise failure


_RAW: dict[str, Any] = {"_preload_content": False, "_request_timeout": _TIMEOUT}


class _RejectedError(MedkdError):
    """The API server answered that it will not do this."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


def in_cluster(namespace: str, stop: threading.Event, user_agent: str = "medkd-driver") -> Cluster:
    """The namespace with the rights of this pod's ServiceAccount; ConfigError outside of a pod that has one."""
    configuration = kubernetes.client.Configuration()
    try:
        kubernetes.config.load_incluster_config(client_configuration=configuration)
    except kubernetes.config.ConfigException as error:
        raise ConfigError(f"Kubernetes: not in a pod with a ServiceAccount token ({error}); or pass --kubeconfig") from None
    return Cluster(_without_own_retries(configuration), namespace, stop, user_agent)


def from_kubeconfig(
    path: str | None, context: str | None, namespace: str | None, stop: threading.Event, user_agent: str = "kubectl-medkd"
) -> Cluster:
    """A namespace with a person's rights; None: what the kubeconfig says. ConfigError where it cannot be used."""
    configuration = kubernetes.client.Configuration()
    try:
        kubernetes.config.load_kube_config(path, context, client_configuration=configuration)
        namespace = namespace or _namespace_of(path, context)
    except (kubernetes.config.ConfigException, OSError) as error:
        raise ConfigError(f"kubeconfig: {error}; set KUBECONFIG or pass --kubeconfig and --context") from None
    return Cluster(_without_own_retries(configuration), namespace, stop, user_agent)


def _namespace_of(path: str | None, context: str | None) -> str:
    contexts, active = kubernetes.config.list_kube_config_contexts(path)
    chosen = next((one for one in contexts if one["name"] == context), active)
    return str(chosen["context"].get("namespace") or "default")


def _without_own_retries(configuration: Any) -> Any:
    configuration.retries = False
    return configuration


def _items(answer: Any) -> list[Object]:
    found: list[Object] = json.loads(answer.data)["items"]
    return found


def _failure(error: ApiException) -> MedkdError:
    """The API server's refusal in one line."""
    message = _message(error)
    if error.status in (401, 403):
        return RefusedError(f"Kubernetes API: {message or 'no permission'}; ask for this right in the namespace")
    if error.status in (429, 500, 502, 503, 504):
        return UnreachableError(f"Kubernetes API: answered {error.status} {message}".rstrip())
    return _RejectedError(f"Kubernetes API: answered {error.status} {message}".rstrip(), int(error.status or 0))


def _message(error: ApiException) -> str:
    try:
        return str(json.loads(error.body)["message"])
    except (ValueError, KeyError, TypeError):
        return str(error.reason or "")
