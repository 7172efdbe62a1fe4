"""What tests of the whole gateway share: the gateway itself, and real servers of both eras."""

from __future__ import annotations

import functools
import gc
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from unittest import mock

import hypothesis
import pytest

from mcp_gateway.config.settings import LLHTTP, TORNADO
from tests.doubles.http_parser import VARIABLE
from tests.doubles.sdk_server import SdkServer, start_sdk_server
from tests.end_to_end.running_gateway import RunningGateway, is_continuous_integration, start_gateway
from tests.node.browser import Browser, start_browser

# What fails in CI must fail again at home: there the examples are the same in every run, at home they are new each time.
# No deadline for an example anywhere: how long one takes says something about the machine only.
hypothesis.settings.register_profile("ci", derandomize=True, deadline=None)
hypothesis.settings.register_profile("home", deadline=None)
hypothesis.settings.load_profile("ci" if is_continuous_integration() else "home")

# What starts the suite may ignore signals (nohup, a script's background job); the processes under test would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)


def pytest_collection_finish() -> None:
    """The tests themselves are a million objects and more, at which each collection would look: for half a second."""
    gc.collect()
    gc.freeze()


StartGateway = Callable[..., AbstractContextManager[RunningGateway]]


@pytest.fixture(scope="session", name="start_gateway")
def start_gateway_fixture(tmp_path_factory: pytest.TempPathFactory) -> StartGateway:
    """`start_gateway(form, backends, ...)` in a directory of its own, see `running_gateway.start_gateway`."""

    @functools.wraps(start_gateway)
    def start(*arguments: object, **options: object) -> AbstractContextManager[RunningGateway]:
        return start_gateway(tmp_path_factory.mktemp("gateway"), *arguments, **options)  # type: ignore[arg-type]

    return start


@pytest.fixture(scope="module", params=[LLHTTP, TORNADO])
def each_http_parser(request: pytest.FixtureRequest) -> Iterator[str]:
    """The tests of the module run twice: with each parser that a gateway may have."""
    with mock.patch.dict(os.environ, {VARIABLE: request.param}):
        yield request.param


@pytest.fixture(scope="session")
def legacy_server() -> Iterator[SdkServer]:
    """A server that knows only revisions with a handshake; tests that share it tell their traces apart by tags."""
    with start_sdk_server(name="legacy", era="legacy", page_size=5) as server:
        yield server


@pytest.fixture(scope="session")
def modern_server() -> Iterator[SdkServer]:
    """A server that knows only 2026-07-28."""
    with start_sdk_server(name="modern", era="modern", page_size=5) as server:
        yield server


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """A real Chromium. `./scripts/test` installs it where it may; elsewhere these tests are skipped, in CI they fail."""
    missing = [name for name in ("node", "chromium") if shutil.which(name) is None]
    if missing and not is_continuous_integration():
        pytest.skip(f"{' and '.join(missing)} is not installed")
    with start_browser() as browser:
        yield browser
