"""Access to the Kubernetes API: a run's Jobs, pods, status ConfigMap and Events as plain dictionaries.

Of the `kubernetes` client only configuration, identity and connections are used: its models refuse fields of newer servers, and
importing them and its API classes takes longer than everything else that a command does. What passes by itself is tried again
here: conflicts, throttling, a server that restarts. A 404 is an answer, not an error.
"""

from __future__ import annotations

import json
import logging
import threading
from typing import Any
from urllib.parse import quote, urlencode

import kubernetes.config
from kubernetes.client.configuration import Configuration
from kubernetes.client.rest import RESTClientObject
from urllib3 import BaseHTTPResponse, Timeout
from urllib3.exceptions import HTTPError, SSLError

from medkd.cluster import names
from medkd.errors import ConfigError, MedkdError, RefusedError, UnreachableError
from medkd.telemetry import event

Object = dict[str, Any]

_CONNECT_SECONDS, _READ_SECONDS = 5.0, 30.0
_PASSING = (409, 422, 429, 500, 502, 503, 504)
_PAUSES = (0.2, 0.5, 1.0, 2.0, 4.0)
# Of a map only what is named changes, and null takes a key away.
_CONTENT_TYPES = {"POST": "application/json", "PATCH": "application/strategic-merge-patch+json"}
_AS_US = {"fieldManager": names.FIELD_MANAGER}


class Cluster:
    """One namespace seen with the rights of whoever connects. Safe to use from several threads.

    Methods raise RefusedError where the right is missing, UnreachableError where the server does not answer for several
    seconds, and MedkdError where it rejects a request.
    """

    def __init__(self, configuration: Any, namespace: str, stop: threading.Event, user_agent: str = "medkd") -> None:
        self.namespace = namespace
        self._configuration = configuration
        self._connections = RESTClientObject(configuration).pool_manager
        self._headers = {"User-Agent": user_agent, "Accept": "application/json, */*"}
        self._stop = stop

    # --- Jobs ---------------------------------------------------------------------------------------------------------

    def job(self, name: str) -> Object | None:
        """The Job, or None where there is none."""
        return self._object("GET", self._jobs(name))

    def jobs(self, label_selector: str) -> list[Object]:
        """The Jobs with these labels."""
        return self._list(self._jobs(), labelSelector=label_selector)

    def patch_job(self, name: str, body: Object) -> Object | None:
        """Merge changes into a Job; None where there is none."""
        return self._object("PATCH", self._jobs(name), body, _AS_US)

    def create_job(self, body: Object) -> None:
        """Create a Job from its manifest."""
        self._do("POST", self._jobs(), body)

    def delete_job(self, name: str) -> None:
        """Ask for the end of a Job and its pods; it is gone when `job` says None."""
        self._object("DELETE", self._jobs(name), query={"propagationPolicy": "Foreground"})

    # --- pods ---------------------------------------------------------------------------------------------------------

    def unfinished_pods(self, label_selector: str, limit: int = 300) -> list[Object]:
        """Pods with these labels that have not succeeded, so many at most."""
        selection = {"labelSelector": label_selector, "fieldSelector": "status.phase!=Succeeded"}
        return self._list(self._core("pods"), **selection, limit=limit)

    def pods(self, label_selector: str, limit: int = 500) -> list[Object]:
        """Pods with these labels, so many at most."""
        return self._list(self._core("pods"), labelSelector=label_selector, limit=limit)

    def pod_log(self, name: str, last_lines: int) -> str:
        """The last lines that a pod's main container wrote; an empty text where it has not started."""
        path = f"{self._core('pods', name)}/log"
        try:
            answer = self._do("GET", path, query={"container": names.CONTAINER, "tailLines": last_lines}, passing=())
        except _RejectedError:
            return ""
        return answer.decode(errors="replace")

    # --- what the driver publishes ------------------------------------------------------------------------------------

    def config_map(self, name: str) -> Object | None:
        """The ConfigMap, or None where there is none."""
        return self._object("GET", self._core("configmaps", name))

    def patch_config_map(self, name: str, data: dict[str, str]) -> None:
        """Replace these keys of a ConfigMap; nothing happens where there is none."""
        self._object("PATCH", self._core("configmaps", name), {"data": data}, _AS_US)

    def create_event(self, body: Object) -> None:
        """Publish an Event; one of that name which is there already stands."""
        try:
            self._do("POST", self._core("events"), body, passing=(429, 503))
        except _RejectedError as error:
            # 404: the namespace is being deleted, and nobody will read it.
            if error.status not in (404, 409):
                raise

    # --- one way through ----------------------------------------------------------------------------------------------

    def _jobs(self, name: str = "") -> str:
        return f"/apis/batch/v1/namespaces/{quote(self.namespace)}/jobs" + (f"/{quote(name)}" if name else "")

    def _core(self, kind: str, name: str = "") -> str:
        return f"/api/v1/namespaces/{quote(self.namespace)}/{kind}" + (f"/{quote(name)}" if name else "")

    def _list(self, path: str, **query: Any) -> list[Object]:
        found: list[Object] = json.loads(self._do("GET", path, query=query))["items"]
        return found

    def _object(self, method: str, path: str, body: Object | None = None, query: Object | None = None) -> Object | None:
        try:
            answer = self._do(method, path, body, query)
        except _RejectedError as error:
            if error.status == 404:
                return None
            raise
        found: Object = json.loads(answer)
        return found

    def _do(
        self,
        method: str,
        path: str,
        body: Object | None = None,
        query: Object | None = None,
        passing: tuple[int, ...] = _PASSING,
    ) -> bytes:
        """The answer's bytes; `passing`: answers after which the same is asked again."""
        for pause in (*_PAUSES, None):
            try:
                answer = self._send(method, path, body, query)
                if 200 <= answer.status < 300:
                    return answer.data
                failure = _failure(answer)
                if answer.status not in passing:
                    raise failure
            except (HTTPError, OSError) as error:
                failure = UnreachableError(f"Kubernetes API: no answer ({_words(error)})")
            if pause is None or self._stop.is_set():
                break
            event("Kubernetes API, trying again", level=logging.DEBUG, reason=str(failure), seconds=pause)
            self._stop.wait(pause)
        raise failure

    def _send(self, method: str, path: str, body: Object | None, query: Object | None) -> BaseHTTPResponse:
        headers = dict(self._headers)
        # Asked anew each time: tokens expire, and the client fetches the next one here.
        for identity in self._configuration.auth_settings().values():
            if identity["in"] == "header" and identity["value"]:
                headers[identity["key"]] = identity["value"]
        if body is not None:
            headers["Content-Type"] = _CONTENT_TYPES[method]
        answer: BaseHTTPResponse = self._connections.request(
            method,
            self._configuration.host + path + (f"?{urlencode(query)}" if query else ""),
            body=None if body is None else json.dumps(body),
            headers=headers,
            timeout=Timeout(connect=_CONNECT_SECONDS, read=_READ_SECONDS),
        )
        return answer


class _RejectedError(MedkdError):
    """The API server answered that it will not do this."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


def in_cluster(namespace: str, stop: threading.Event, user_agent: str = "medkd-driver") -> Cluster:
    """The namespace with the rights of this pod's ServiceAccount; ConfigError outside of a pod that has one."""
    configuration = Configuration()
    try:
        kubernetes.config.load_incluster_config(client_configuration=configuration)
    except kubernetes.config.ConfigException as error:
        raise ConfigError(f"Kubernetes: not in a pod with a ServiceAccount token ({error}); or pass --kubeconfig") from None
    return Cluster(_without_own_retries(configuration), namespace, stop, user_agent)


def from_kubeconfig(
    path: str | None, context: str | None, namespace: str | None, stop: threading.Event, user_agent: str = "kubectl-medkd"
) -> Cluster:
    """A namespace with a person's rights; None: what the kubeconfig says. ConfigError where it cannot be used."""
    configuration = Configuration()
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


def _failure(answer: BaseHTTPResponse) -> MedkdError:
    """The API server's refusal in one line."""
    message = _message(answer)
    if answer.status in (401, 403):
        return RefusedError(f"Kubernetes API: {message or 'no permission'}; ask for this right in the namespace")
    if answer.status in (429, 500, 502, 503, 504):
        return UnreachableError(f"Kubernetes API: answered {answer.status} {message}".rstrip())
    return _RejectedError(f"Kubernetes API: answered {answer.status} {message}".rstrip(), answer.status)


def _message(answer: BaseHTTPResponse) -> str:
    try:
        return str(json.loads(answer.data)["message"])
    except (ValueError, KeyError, TypeError):
        return answer.reason or ""


def _words(error: Exception) -> str:
    """What kept an answer away; of TLS also why, which is mended in the kubeconfig."""
    return f"TLS: {error}" if isinstance(error, SSLError) else type(error).__name__
