"""A headless Chromium that tests open pages in, driven over its DevTools protocol."""

from __future__ import annotations

import contextlib
import itertools
import json
import shutil
import subprocess
import time
from pathlib import Path

__all__ = ["CHROMIUM", "Browser", "connect"]

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
try:
    from websockets.sync.client import connect
except ImportError:
    connect = None


class Browser:
    """One page of a headless Chromium; what it logs and asks of the network is kept."""

    def __init__(self, folder: Path) -> None:
        command = [
            str(CHROMIUM), "--headless=new", "--no-sandbox", "--disable-gpu",
            "--disable-extensions", "--disable-background-networking", "--no-first-run",
            "--remote-debugging-port=0",
            f"--user-data-dir={folder}", "about:blank",
        ]  # fmt: skip
        self.process = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        port = folder / "DevToolsActivePort"
        for _ in range(600):
            if port.is_file() and len(port.read_text().split()) == 2:
                break
            time.sleep(0.05)
        number, path = port.read_text().split()
        where = f"ws://127.0.0.1:{number}{path}"
        self.closing = contextlib.ExitStack()
        self.socket = self.closing.enter_context(
            connect(where, max_size=None, proxy=None, open_timeout=30)
        )
        self.events: list[dict] = []
        self.numbers = itertools.count(1)
        self.session = ""
        target = self("Target.createTarget", url="about:blank")["targetId"]
        attached = self("Target.attachToTarget", targetId=target, flatten=True)
        self.session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self(f"{domain}.enable")

    def __call__(self, method: str, **params) -> dict:
        number = next(self.numbers)
        message = {"id": number, "method": method, "params": params}
        if self.session:
            message["sessionId"] = self.session
        self.socket.send(json.dumps(message))
        while True:
            answer = json.loads(self.socket.recv(timeout=60))
            if answer.get("id") == number:
                assert "error" not in answer, answer
                return answer["result"]
            self.events.append(answer)

    def open(self, page: Path, width: int = 1280) -> None:
        self.events.clear()
        self("Emulation.setDeviceMetricsOverride", width=width, height=900,
             deviceScaleFactor=1, mobile=width < 600)  # fmt: skip
        self("Network.emulateNetworkConditions", offline=True, latency=0,
             downloadThroughput=-1, uploadThroughput=-1)  # fmt: skip
        self("Page.navigate", url=page.as_uri())
        for _ in range(400):
            if self.js("document.readyState") == "complete" and self.js("location.href") != (
                "about:blank"
            ):
                return
            time.sleep(0.02)
        raise AssertionError("the page did not load")

    def js(self, text: str):
        """Evaluate an expression; an exception in the page fails the test."""
        answer = self("Runtime.evaluate", expression=text, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def press(self, key: str, code: int) -> None:
        text = {"Enter": "\r", " ": " "}.get(key, "")
        params = {"key": key, "code": key, "windowsVirtualKeyCode": code}
        self("Input.dispatchKeyEvent", type="keyDown", **params, **({"text": text} if text else {}))
        self("Input.dispatchKeyEvent", type="keyUp", **params)

    def complaints(self) -> list[str]:
        """Return what was logged as an error or thrown."""
        found = []
        for one in self.events:
            if one["method"] == "Log.entryAdded" and one["params"]["entry"]["level"] == "error":
                found.append(one["params"]["entry"]["text"])
            if one["method"] == "Runtime.exceptionThrown":
                found.append(json.dumps(one["params"]["exceptionDetails"]))
            if one["method"] == "Runtime.consoleAPICalled":
                found.append(json.dumps(one["params"]["args"]))
        return found

    def asked(self) -> list[str]:
        """Return every address that the page asked for."""
        return [
            one["params"]["request"]["url"]
            for one in self.events
            if one["method"] == "Network.requestWillBeSent"
        ]

    def close(self) -> None:
        self.closing.close()
        self.process.terminate()
        self.process.wait(20)
