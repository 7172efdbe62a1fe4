"""The request watch: around the requests that somebody asks about, and invisible around all others."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Mapping
from typing import Any

import msgspec
import pytest

from mcp_gateway.config.settings import LoggingSettings
from mcp_gateway.transports.downstream.exchanges import request_watch
from mcp_gateway.transports.downstream.exchanges.request_watch import RequestWatch, WatchedSink
from mcp_gateway.transports.ports.edge_port import Exchange
from mcp_gateway.transports.ports.principal import Principal
from mcp_gateway.transports.ports.request_kind import RequestKind
from mcp_gateway.transports.protocol.mcp.jsonrpc import Request
from mcp_gateway.transports.protocol.mcp.refusals import Refused
from mcp_gateway.transports.telemetry import metrics, tracing
from mcp_gateway.transports.telemetry.exemplars import EXEMPLARS, Exemplars
from mcp_gateway.transports.telemetry.tallies import write_tallies

TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = f"00-{TRACE}-b7ad6b7169203331-01"
_ids = itertools.count(1)


@pytest.fixture(autouse=True)
def configured(monkeypatch: pytest.MonkeyPatch) -> None:
    """The backends of these tests, and no tool that another one has used."""
    metrics.known_backend.learn(("files", "exemplary"))
    monkeypatch.setattr(metrics, "tool_label", metrics.ToolLabel())


class Sink:
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.told: list[tuple[Any, ...]] = []

    def answer(self, status: int, body: bytes, headers: Mapping[str, str], backend: str, upstream_s: float) -> None:
        self.told.append(("answer", status, body, backend))

    def refuse(self, refused: Refused, backend: str) -> None:
        self.told.append(("refuse", refused.reason, backend))

    def begin(self, headers: Mapping[str, str]) -> None:
        self.told.append(("begin",))

    def event(self, data: bytes, event_id: str | None) -> None:
        self.told.append(("event", data, event_id))

    def end(self, backend: str, upstream_s: float) -> None:
        self.told.append(("end", backend))


def exchange(target: str = "tools/list", *, params: bytes = b"", headers: Mapping[str, str] | None = None) -> Exchange:
    method = "/".join(target.split("/")[:2])
    return Exchange(
        exchange_id=next(_ids),
        transport="websocket",
        revision="2025-11-25",
        endpoint="",
        kind=RequestKind.REQUEST,
        message=Request(b"1", method, params),
        target=target,
        headers=headers or {},
        deadline_s=1.0,
    )


def tool_count(backend: str, tool: str, outcome: str) -> float:
    write_tallies()
    samples = metrics.tool_calls_total.collect()
    wanted = {"backend": backend, "tool": tool, "outcome": outcome}
    return sum(
        each.value for metric in samples for each in metric.samples if each.name.endswith("_total") and each.labels == wanted
    )


def test_a_request_about_which_nobody_asks_is_left_alone() -> None:
    sink, asked = Sink(), exchange()
    assert RequestWatch(LoggingSettings(), "cell/0").watch(asked, sink) == (asked, sink)


def test_everything_is_passed_on_and_each_call_of_a_tool_counted_once() -> None:
    watch = RequestWatch(LoggingSettings(), "cell/0")
    first, second, third = Sink(), Sink(), Sink()
    for sink, outcome in ((first, "ok"), (second, "upstream_timeout"), (third, "client_gone")):
        _, watched = watch.watch(exchange("tools/call/watched"), sink)
        assert isinstance(watched, WatchedSink)
        if outcome == "ok":
            watched.begin({})
            watched.event(b"data", "7")
            watched.end("files", 0.1)
        elif outcome == "client_gone":
            watched.gone()
            watched.answer(200, b"late", {}, "files", 0.1)
        else:
            watched.refuse(Refused("upstream_timeout", "too slow"), "files")
    assert first.told == [("begin",), ("event", b"data", "7"), ("end", "files")]
    assert second.told == [("refuse", "upstream_timeout", "files")]
    assert third.told == [("answer", 200, b"late", "files")]
    counts = [tool_count("files", "watched", outcome) for outcome in ("ok", "upstream_timeout")]
    assert [*counts, tool_count("", "watched", "client_gone")] == [1, 1, 1]


@pytest.mark.parametrize("ending", ["answer", "refuse", "end"])
def test_a_call_is_counted_before_its_client_has_the_answer(ending: str) -> None:
    """The client may ask another cell for the metrics at once."""

    class Counting(Sink):
        def answer(self, *_: Any) -> None:
            counts.append(tool_count("files", ending, "ok"))

        def refuse(self, *_: Any) -> None:
            counts.append(tool_count("files", ending, "upstream_timeout"))

        def end(self, *_: Any) -> None:
            counts.append(tool_count("files", ending, "ok"))

    counts: list[float] = []
    _, watched = RequestWatch(LoggingSettings(), "cell/0").watch(exchange(f"tools/call/{ending}"), Counting())
    if ending == "answer":
        watched.answer(200, b"{}", {}, "files", 0.1)
    elif ending == "refuse":
        watched.refuse(Refused("upstream_timeout", "too slow"), "files")
    else:
        watched.end("files", 0.1)
    assert counts == [1]


def test_names_that_clients_make_up_leave_no_series_and_no_memory() -> None:
    metrics.tool_label.learn("files", ["real"])
    watch = RequestWatch(LoggingSettings(), "cell/0")

    def call(target: str, backend: str) -> None:
        _, watched = watch.watch(exchange(target, headers={"traceparent": PARENT}), Sink())
        watched.answer(200, b"{}", {}, backend, 0.1)

    def size() -> tuple[int, int, int]:
        samples = [sample for metric in metrics.tool_calls_total.collect() for sample in metric.samples]
        return len(samples), len(request_watch._tool_counters), len(EXEMPLARS._newest)

    before = size()
    for number in range(2_000):
        call(f"tools/call/invented-{number}", "files")
        call("tools/call/real", f"invented-{number}")
        call(f"invented/{number}", "files")
    grown = [now - then for now, then in zip(size(), before, strict=True)]
    assert all(each <= 60 for each in grown), grown
    call("tools/call/real", "files")
    assert tool_count("files", "real", "ok") == 1
    assert tool_count("files", "other", "ok") >= 1_900


def test_a_context_in_meta_joins_the_headers_and_leaves_an_exemplar() -> None:
    watch = RequestWatch(LoggingSettings(), "cell/0")
    asked = exchange(params=b'{"_meta": {"traceparent": "%b", "baggage": "k=v"}}' % PARENT.encode())
    carried, watched = watch.watch(asked, Sink())
    assert carried.headers == {"traceparent": PARENT, "baggage": "k=v"}
    watched.answer(200, b"", {}, "exemplary", 0.0)
    assert ("tools/list", "exemplary") in {key[:2] for key in EXEMPLARS._newest}


def test_headers_of_the_client_stand_before_its_meta() -> None:
    asked = exchange(
        params=b'{"_meta": {"traceparent": "00-%b-%b-00"}}' % (b"1" * 32, b"2" * 16), headers={"traceparent": PARENT}
    )
    carried, _ = RequestWatch(LoggingSettings(), "cell/0").watch(asked, Sink())
    assert carried.headers == {"traceparent": PARENT}


@pytest.mark.parametrize(
    ("sample", "outcome", "is_written"),
    [(1.0, "ok", True), (0.0, "ok", False), (0.0, "error", True), (0.0, "upstream_failed", True)],
)
def test_the_access_log_samples_only_what_ended_well(
    sample: float, outcome: str, is_written: bool, caplog: pytest.LogCaptureFixture
) -> None:
    watch = RequestWatch(LoggingSettings(access=True, access_sample=sample), "cell/0")
    asked = exchange()
    with caplog.at_level(logging.INFO, "mcp_gateway.access"):
        _, watched = watch.watch(asked, Sink())
        if outcome == "upstream_failed":
            watched.refuse(Refused("upstream_failed", "gone", upstream_s=0.2), "files")
        else:
            watched.answer(200 if outcome == "ok" else 400, b"", {}, "files", 0.2)
    assert bool(caplog.records) is is_written
    for record in caplog.records:
        fields = record.__dict__["fields"]
        assert fields["request_id"] == f"cell/0#{asked.exchange_id}"
        assert (fields["outcome"], fields["backend"], fields["upstream_s"]) == (outcome, "files", 0.2)


@pytest.mark.parametrize(
    ("reason", "is_written"),
    [("upstream_failed", True), ("circuit_open", True), ("forbidden", True), ("unauthorized", True), ("too_large", False)],
)
def test_what_failed_and_what_a_rule_forbids_is_in_the_log_and_its_client_is_told_where(
    reason: str, is_written: bool, caplog: pytest.LogCaptureFixture
) -> None:
    watch = RequestWatch(LoggingSettings(), "cell/0")
    asked, refused = exchange("tools/call/read"), Refused(reason, "why")
    with caplog.at_level(logging.INFO, "mcp_gateway.access"):
        _, watched = watch.watch(asked, Sink())
        watched.refuse(refused, "files")
    name = f"cell/0#{asked.exchange_id}"
    assert (refused.data["request_id"], watch.recent.shown()[0]["id"]) == (name, name)
    written = [record.__dict__["fields"] for record in caplog.records]
    assert [(each["request_id"], each["refused"]) for each in written] == ([(name, "why")] if is_written else [])


def test_a_client_that_asks_for_what_is_forbidden_does_not_fill_the_log(caplog: pytest.LogCaptureFixture) -> None:
    watch = RequestWatch(LoggingSettings(), "cell/0")
    with caplog.at_level(logging.INFO, "mcp_gateway.access"):
        for reason in ("forbidden", "upstream_failed"):
            caplog.clear()
            for _ in range(200):
                _, watched = watch.watch(exchange("tools/call/read"), Sink())
                watched.refuse(Refused(reason, "why"), "files")
            assert len(caplog.records) == 200 if reason == "upstream_failed" else 1 <= len(caplog.records) <= 100


def test_the_access_log_and_the_trace_say_who_asked(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[dict[str, str]] = []

    class Span:
        headers: Mapping[str, str] = {}

        def end(self, outcome: str, **_: str) -> None:
            """Nothing is sent."""

    class Tracer:
        def server_span(self, method: str, target: str, headers: Mapping[str, str], about: dict[str, str]) -> Span:
            told.append(about)
            return Span()

    monkeypatch.setattr(tracing, "tracer", Tracer())
    watch = RequestWatch(LoggingSettings(access=True), "cell/0")
    ada = Principal(issuer="https://id.example", subject="ada", client="editor")
    with caplog.at_level(logging.INFO, "mcp_gateway.access"):
        for principal in (ada, None):
            _, watched = watch.watch(msgspec.structs.replace(exchange(), principal=principal), Sink())
            watched.answer(200, b"", {}, "files", 0.2)
    known, anonymous = (record.__dict__["fields"] for record in caplog.records)
    assert (known["user"], known["client"]) == ("https://id.example ada", "editor")
    assert "user" not in anonymous
    assert [about.get("enduser.id") for about in told] == ["ada", None]


def test_without_the_extra_or_a_collector_there_is_no_tracer() -> None:
    assert tracing.tracer is None


def test_exemplars_are_bounded_and_found_beside_their_bucket() -> None:
    exemplars = Exemplars((0.1, 1.0, float("inf")))
    exemplars.note("tools/call", "files", 0.5, TRACE)
    from prometheus_client.samples import Sample

    def bucket(bound: str) -> Sample:
        return Sample("x_bucket", {"method": "tools/call", "backend": "files", "le": bound}, 1.0)

    found = {bound: exemplars.beside(bucket(bound)).exemplar for bound in ("0.1", "1.0", "+Inf")}
    assert found["1.0"].labels == {"trace_id": TRACE}
    assert found["1.0"].value == 0.5
    assert (found["0.1"], found["+Inf"]) == (None, None)
    for number in range(5_000):
        exemplars.note("tools/call", f"b{number}", 0.5, TRACE)
    assert len(exemplars._newest) == 2_000


FAILED = b'{"jsonrpc":"2.0","id":1,"result":{"content":[],"isError":true}}'


def test_a_tool_that_says_that_it_has_failed_is_counted_so_in_an_answer_and_at_the_end_of_a_stream() -> None:
    watch = RequestWatch(LoggingSettings(), "cell")
    for body, outcome in ((FAILED, "tool_error"), (FAILED.replace(b"true", b"false"), "ok")):
        before = tool_count("files", "read", outcome)
        watch.watch(exchange("tools/call/read"), Sink())[1].answer(200, body, {}, "files", 0.1)
        streamed = watch.watch(exchange("tools/call/read"), Sink())[1]
        streamed.begin({})
        streamed.event(b'{"method":"notifications/progress"}', None)
        streamed.event(body, None)
        streamed.end("files", 0.1)
        assert tool_count("files", "read", outcome) == before + 2
    assert sorted(each["outcome"] for each in watch.recent.shown()) == ["ok", "ok", "tool_error", "tool_error"]
