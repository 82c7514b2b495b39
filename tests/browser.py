"""A headless Chromium for tests of pages, driven over the WebDriver protocol; `found()` says whether this machine has one."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import requests

_ELEMENT = "element-6066-11e4-a52e-4f735466cecf"
_KEYS = {"tab": "\ue004"}


def found() -> bool:
    return bool(shutil.which("chromium") and shutil.which("chromedriver"))


class Page:
    """One window; `downloads` is the folder its files are saved to."""

    def __init__(self, session_url: str, downloads: Path) -> None:
        self._url, self.downloads = session_url, downloads

    def open(self, path: Path) -> None:
        self._post("url", {"url": path.resolve().as_uri()})

    def run(self, script: str, *arguments: Any) -> Any:
        """The value that a piece of JavaScript returns."""
        return self._post("execute/sync", {"script": script, "args": list(arguments)})

    def until(self, script: str) -> Any:
        """The value that a piece of JavaScript returns as soon as it is a true one."""
        deadline = time.monotonic() + 20
        while not (value := self.run(script)):
            assert time.monotonic() < deadline, f"nothing came of: {script}"
            time.sleep(0.02)
        return value

    def click(self, css: str) -> None:
        # As a person does with what lies under the page's head.
        self.run("document.querySelector(arguments[0]).scrollIntoView({block: 'center'})", css)
        self._post(f"element/{self._element(css)}/click", {})

    def type(self, css: str, text: str) -> None:
        """Keys as a person types them, into one element."""
        self._post(f"element/{self._element(css)}/value", {"text": text})

    def press(self, *keys: str) -> None:
        """Keys into whatever has the focus."""
        for key in keys:
            value = _KEYS.get(key, key)
            actions = [{"type": "keyDown", "value": value}, {"type": "keyUp", "value": value}]
            self._post("actions", {"actions": [{"type": "key", "id": "keyboard", "actions": actions}]})

    def text(self, css: str) -> str:
        return str(self.run("return document.querySelector(arguments[0]).textContent", css))

    def log(self) -> list[str]:
        """What the console has said since the last call: errors, refused requests."""
        return [entry["message"] for entry in self._post("se/log", {"type": "browser"})]

    def downloaded(self, name: str) -> Path:
        """The file of that name once it is there whole."""
        path = self.downloads / name
        deadline = time.monotonic() + 20
        while not path.exists() or path.with_name(f"{name}.crdownload").exists():
            assert time.monotonic() < deadline, f"{name} was not saved; there is {sorted(self.downloads.iterdir())}"
            time.sleep(0.05)
        return path

    def _element(self, css: str) -> str:
        return str(self._post("element", {"using": "css selector", "value": css})[_ELEMENT])

    def _post(self, what: str, body: dict[str, Any]) -> Any:
        answer = requests.post(f"{self._url}/{what}", json=body, timeout=60).json()["value"]
        assert not (isinstance(answer, dict) and "error" in answer), answer
        return answer


@contextmanager
def page(folder: Path) -> Iterator[Page]:
    """A fresh browser with a profile of its own in the folder."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    downloads = folder / "downloads"
    downloads.mkdir()
    driver = subprocess.Popen(["chromedriver", f"--port={port}"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    base = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + 30
        while True:
            try:
                requests.get(f"{base}/status", timeout=5)
                break
            except requests.ConnectionError:
                assert time.monotonic() < deadline, "chromedriver does not answer"
                time.sleep(0.1)
        flags = [
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--window-size=1200,1000",
            f"--user-data-dir={folder / 'profile'}",
        ]
        chrome = {"args": flags, "prefs": {"download.default_directory": str(downloads), "download.prompt_for_download": False}}
        wanted = {"alwaysMatch": {"goog:chromeOptions": chrome, "goog:loggingPrefs": {"browser": "ALL"}}}
        session = requests.post(f"{base}/session", json={"capabilities": wanted}, timeout=60).json()["value"]["sessionId"]
        try:
            yield Page(f"{base}/session/{session}", downloads)
        finally:
            requests.delete(f"{base}/session/{session}", timeout=60)
    finally:
        driver.terminate()
        driver.wait(20)
