"""What must be right about a teacher's address and key before the first call: checked here, so that no library has to complain
with the key in its message."""

from __future__ import annotations

import ipaddress
import re
from pathlib import Path
from urllib.parse import SplitResult, urlsplit

from medkd.config import TeacherConfig
from medkd.errors import ConfigError

_PRINTABLE = re.compile(r"[\x21-\x7e]+")
_CLUSTER_SUFFIXES = (".svc", ".svc.cluster.local", ".localhost")


def checked_key(teacher: TeacherConfig, api_key: str | None) -> str | None:
    """The key as it is sent, without the line break that a mounted Secret ends in; None for a teacher without one.

    ConfigError where the teacher needs a key and there is none, or it cannot stand in a header.
    """
    if teacher.auth == "none":
        return None
    key = (api_key or "").strip()
    if not key:
        raise ConfigError(f"{label(teacher)}: no API key; set {teacher.api_key_env}")
    if not _PRINTABLE.fullmatch(key):
        raise ConfigError(
            f"{label(teacher)}: {teacher.api_key_env} has blanks or special characters inside; copy the API key anew"
        )
    return key


def check(teacher: TeacherConfig, key: str | None, ca_bundle: str | None) -> None:
    """ConfigError for an address that cannot work, or that would carry a key in the clear beyond this cluster."""
    url = _split(teacher)
    if url is None or not url.hostname:
        raise ConfigError("base_url: got no URL with a host, expected for example https://api.example.com/v1")
    if url.username is not None or url.query or url.fragment:
        raise ConfigError(f"base_url ({url.hostname}): expected scheme, host and path alone; the key comes from api_key_env")
    if key is not None and url.scheme != "https" and not _in_cluster(url.hostname):
        raise ConfigError(f"base_url: got http:// for {url.hostname}, expected https:// where a key leaves the cluster")
    if ca_bundle is not None and not Path(ca_bundle).exists():
        raise ConfigError(f"CA bundle: got {ca_bundle}, which does not exist; pass a PEM file or a folder of certificates")


def label(teacher: TeacherConfig) -> str:
    """How messages and logs name the teacher."""
    url = _split(teacher)
    return f"teacher {teacher.model} at {url.hostname if url is not None else 'an invalid base_url'}"


def _split(teacher: TeacherConfig) -> SplitResult | None:
    try:
        url = urlsplit(teacher.base_url)
        url.port  # noqa: B018 - a port that is no number raises only when read
    except ValueError:
        return None
    return url


def _in_cluster(host: str) -> bool:
    """Loopback, a private address, or a name that only a cluster or this machine resolves."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return "." not in host or host.endswith(_CLUSTER_SUFFIXES)
    return address.is_private or address.is_loopback
