"""A real Chromium for a test, driven through `browser.mjs`."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.node.node_client import install_once

_HERE = Path(__file__).parent
_NAMES = ("chromium", "chromium-browser", "google-chrome")


class Browser:
    """One page at a time; every method waits for what it does, and raises AssertionError when that fails."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def _do(self, name: str, **options: Any) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({"do": name, **options}) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        assert line, f"the browser has ended: {self._process.poll()}"
        answer = json.loads(line)
        assert "error" not in answer, answer["error"]
        return answer["value"]

    def open(self, url: str, *, width: int = 1280, height: int = 900, scheme: str = "light") -> None:
        """Load a page in a new context; scheme: what the system prefers, "light" or "dark"."""
        self._do("open", url=url, width=width, height=height, scheme=scheme)

    def wait_for(self, selector: str, text: str, timeout_s: float = 20.0) -> str:
        """Wait until an element there shows the text; gives all that the first one shows."""
        self.wait_for_all((selector, text), timeout_s=timeout_s)
        return self.text(selector)

    def wait_for_all(self, *shown: tuple[str, str], timeout_s: float = 20.0) -> None:
        """Wait until elements show texts, (selector, text) each, all at the same moment."""
        self._do("wait_texts", shown=shown, timeout=timeout_s * 1000)

    def text(self, selector: str) -> str:
        return str(self._do("text", selector=selector))

    def fill(self, selector: str, value: str) -> None:
        self._do("fill", selector=selector, value=value)

    def click(self, selector: str) -> None:
        self._do("click", selector=selector)

    def press(self, key: str) -> None:
        self._do("press", key=key)

    def evaluate(self, script: str) -> Any:
        """The value of a JavaScript expression in the page; a promise is awaited."""
        return self._do("evaluate", script=script)

    def screenshot(self, path: Path, *, full: bool = True) -> None:
        self._do("screenshot", path=str(path), full=full)

    def axe(self) -> list[dict[str, Any]]:
        """What axe-core finds wrong with the page: {"id", "impact", "nodes"}."""
        found: list[dict[str, Any]] = self._do("axe")
        return found

    def heap_bytes(self) -> int:
        """Memory of the page's JavaScript after a collection."""
        return int(self._do("heap"))

    def problems(self) -> list[str]:
        """Errors and warnings of the console, and errors that nobody caught."""
        found: list[str] = self._do("problems")
        return found

    def requested(self) -> list[str]:
        """Every URL that the page has asked for."""
        found: list[str] = self._do("requested")
        return found

    def answered(self) -> dict[str, int]:
        """{URL: status of the last answer} of everything that the page has asked for, frames and images as well."""
        return dict(self._do("answered"))


@contextmanager
def start_browser() -> Iterator[Browser]:
    """Run Chromium for the length of the `with` block."""
    node = shutil.which("node")
    chromium = next((path for name in _NAMES if (path := shutil.which(name))), None)
    assert node, "Node.js 20 or newer is needed to drive the browser"
    assert chromium, "Chromium is needed: apt-get install chromium"
    install_once()
    process = subprocess.Popen(
        [node, str(_HERE / "browser.mjs"), chromium], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        yield Browser(process)
    finally:
        assert process.stdin is not None
        process.stdin.close()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(5)
