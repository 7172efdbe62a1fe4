"""The engine of a cluster: NATS with JetStream, 2.12 or later.

Keys are the last messages of their subjects in one stream, the log is another stream.

Both are read by sequence with direct gets, and what is published in between is only a hint to read again: nothing is lost where a
hint is. (Ordered consumers of nats-py do not come back from missed heartbeats.)
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from typing import Any, Final, TypeVar

import attrs
import nats.errors
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js import api
from nats.js.errors import APIError, NotFoundError
from nats.js.errors import Error as JetStreamError

from .engine import LOG_PAGE, MAX_PAYLOAD_BYTES, EngineAway, Entry, LogEntry, LogPage, NoResponders, WrongRevision

_CONNECT_S: Final = 2
_RECONNECT_S: Final = 0.5
_PING_S: Final = 2
"""A server that is cut off without a word is given up after two of these: well within the time to live of a presence."""
_ANSWER_S: Final = 3.0
LOOK_AGAIN_S: Final = 1.0
"""Of a watch: keys that end by themselves, or live longer, are told to nobody. Of a hundred nodes each hears each every three
seconds: with a hint for each renewal they would read twenty times as often."""
GATHER_S: Final = 0.05
"""Of a watch: changes that come one upon another are read at once."""
_MARKERS_S: Final = 60
"""How long the stream keeps the fact that a key is gone; a watch that was away for longer compares what is there."""
_WRONG_LAST_SEQUENCE: Final = 10071
"""Source: JSStreamWrongLastSequenceErrF in nats-server, server/errors.json."""
_ANOTHER_UNDER_WAY: Final = 10164
"""Another message of the subject is on its way to the other servers of a cluster: what comes of it is not known yet.
Source: JSStreamWrongLastSequenceConstantErr, there."""
_UNDER_WAY_S: Final = 0.05
_UNDER_WAY_TRIES: Final = 20
_STREAM_IS_THERE: Final = 10058
"""Source: JSStreamNameExistErr, there."""
_NUMBER: Final = "Mcp-Gateway-Number"
_GONE: Final = "Mcp-Gateway-Gone"
_MARKER: Final = "Nats-Marker-Reason"
"""Set by the server on what it puts in the place of a message that has lived its time (ADR-43)."""

_logger = logging.getLogger(__name__)
_Result = TypeVar("_Result")


@attrs.frozen
class _Stored:
    """A message as a stream has it."""

    subject: str
    sequence: int
    data: bytes
    headers: Mapping[str, str]

    @property
    def is_gone(self) -> bool:
        return _MARKER in self.headers or _GONE in self.headers


class NatsEngine:
    """One member's connection. Implements `engine.Engine`; made by `connect`."""

    def __init__(
        self,
        client: Client,
        cluster: str,
        replicas: int = 1,
        retention: int = 10_000,
        first_sequence: Callable[[], int] = lambda: 1,
    ) -> None:
        self._replicas, self._retention, self._first_sequence = replicas, retention, first_sequence
        self._client = client
        self._jet = client.jetstream(timeout=_ANSWER_S)
        self._cluster = cluster
        self._keys, self._log = f"{cluster}-keys", f"{cluster}-events"
        self._appended: dict[str, tuple[int, int]] = {}  # {source: (sequence, number) of its last entry}

    @classmethod
    async def connect(
        cls,
        urls: tuple[str, ...],
        *,
        cluster: str,
        name: str,
        replicas: int = 1,
        retention: int = 10_000,
        first_sequence: Callable[[], int] = lambda: 1,
        user: str | None = None,
        password: str | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> NatsEngine:
        """Connect to one of the servers, and make the streams where they are missing.

        cluster:   keeps clusters that share an engine apart.
        name:      of this member, for the servers' own logs.
        replicas:  servers that keep each stream, 1, 3 or 5.
        retention: entries that the log keeps.
        first_sequence: of the log, asked where it is made: now, or later, after the servers have lost it.

        Raises: EngineAway.
        """
        client = Client()
        engine = cls(client, cluster, replicas, retention, first_sequence)
        try:
            with _told_as_away():
                async with asyncio.timeout(_CONNECT_S * len(urls) + _ANSWER_S):  # else it would try for ever
                    await client.connect(
                        servers=list(urls),
                        name=name,
                        connect_timeout=_CONNECT_S,
                        reconnect_time_wait=_RECONNECT_S,  # type: ignore[arg-type]  # it only sleeps for it
                        max_reconnect_attempts=-1,
                        ping_interval=_PING_S,
                        error_cb=_log_error,
                        user=user,
                        password=password,
                        tls=tls,
                    )
                    await engine._make_streams()
        except BaseException as error:
            await engine.close()
            if isinstance(error, APIError):
                raise EngineAway(f"the streams cannot be made: {error}") from None
            raise
        return engine

    @property
    def is_connected(self) -> bool:
        return self._client.is_connected

    async def _make_streams(self) -> None:
        shared: dict[str, Any] = {"allow_direct": True, "num_replicas": self._replicas, "storage": api.StorageType.FILE}
        configs = {}
        configs[self._keys] = api.StreamConfig(
            name=self._keys,
            subjects=[self._key_subject(">")],
            max_msgs_per_subject=1,
            allow_msg_ttl=True,
            subject_delete_marker_ttl=_MARKERS_S,
            allow_rollup_hdrs=True,
            **shared,
        )
        configs[self._log] = api.StreamConfig(
            name=self._log,
            subjects=[self._log_subject(">")],
            max_msgs=self._retention,
            first_seq=self._first_sequence(),
            **shared,
        )
        for name, config in configs.items():
            try:
                found = (await self._jet.stream_info(name)).config
            except NotFoundError:
                await self._make_stream(config)
            else:
                if (found.num_replicas or 1) < self._replicas:  # there are more servers than when it was made
                    await self._copy_to_more(found)

    async def _make_stream(self, config: api.StreamConfig) -> None:
        try:
            await self._jet.add_stream(config)
        except APIError as error:
            if error.err_code != _STREAM_IS_THERE:  # another member was faster
                raise

    async def _copy_to_more(self, config: api.StreamConfig) -> None:
        try:
            await self._jet.update_stream(config.evolve(num_replicas=self._replicas))
        except APIError as error:  # what is kept is kept as before
            _logger.warning("%s is not kept by %d servers: %s", config.name, self._replicas, error)

    def _message_subject(self, subject: str) -> str:
        return f"{self._cluster}.m.{subject}"

    def _key_subject(self, key: str) -> str:
        return f"{self._cluster}.k.{key}"

    def _hint_subject(self, key: str) -> str:
        """Says that the key has changed."""
        return f"{self._cluster}.h.{key}"

    def _log_subject(self, source: str) -> str:
        return f"{self._cluster}.ev.{source}"

    async def _reach(self, awaitable: Callable[[], Awaitable[_Result]], payload: bytes = b"") -> _Result:
        if len(payload) > MAX_PAYLOAD_BYTES:
            raise ValueError(f"{len(payload)} bytes are more than the {MAX_PAYLOAD_BYTES} of a message")
        if not self.is_connected:  # nats-py would keep it, and send it after the caller has been told that it failed
            raise EngineAway("not connected")
        with _told_as_away():
            return await awaitable()

    # ---- messages

    async def request(self, subject: str, payload: bytes, timeout_s: float) -> bytes:
        try:
            answer = await self._reach(
                lambda: self._client.request(self._message_subject(subject), payload, timeout=timeout_s), payload
            )
        except nats.errors.NoRespondersError:
            raise NoResponders(subject) from None
        return answer.data

    async def serve(self, subject: str, answer: Callable[[bytes], Awaitable[bytes]]) -> Callable[[], Awaitable[None]]:
        tasks: set[asyncio.Task[None]] = set()

        async def reply(message: Msg) -> None:
            try:
                await message.respond(await answer(message.data))
            except nats.errors.Error as error:
                _logger.warning("an answer under %s could not be sent: %r", subject, error)
            except Exception:
                _logger.exception("a request of %s was not answered", subject)

        async def take(message: Msg) -> None:
            task = asyncio.get_running_loop().create_task(reply(message))
            tasks.add(task)
            task.add_done_callback(tasks.discard)

        return await self._listen(self._message_subject(subject), take)

    async def publish(self, subject: str, payload: bytes) -> None:
        await self._reach(lambda: self._client.publish(self._message_subject(subject), payload), payload)

    async def subscribe(self, subject: str, take: Callable[[bytes], None]) -> Callable[[], Awaitable[None]]:
        async def take_message(message: Msg) -> None:
            take(message.data)

        return await self._listen(self._message_subject(subject), take_message)

    async def _listen(self, subject: str, take: Callable[[Msg], Awaitable[None]]) -> Callable[[], Awaitable[None]]:
        """Returns when the server knows of it."""
        subscription = await self._reach(lambda: self._client.subscribe(subject, cb=take))
        await self._reach(self._flush)

        async def stop() -> None:
            with contextlib.suppress(nats.errors.Error, OSError):
                await subscription.unsubscribe()
                await self._flush()  # whoever asks from now on hears that nobody serves it

        return stop

    async def _flush(self) -> None:
        """Return when the server has taken all that was said."""
        # nats-py sends the ping ahead of what waits to be written, and has written that by the time of the pong.
        for _ in range(2):
            await self._client.flush(_CONNECT_S)

    # ---- keys

    async def get(self, key: str) -> Entry | None:
        found = await self._last(self._keys, self._key_subject(key))
        return None if found is None or found.is_gone else Entry(key, found.sequence, found.data)

    async def create(self, key: str, value: bytes, ttl_s: int | None = None) -> int:
        found = await self._last(self._keys, self._key_subject(key))
        if found is not None and not found.is_gone:
            raise WrongRevision(key)
        return await self._put(key, value, 0 if found is None else found.sequence, _ttl(ttl_s))

    async def update(self, key: str, value: bytes, revision: int, ttl_s: int | None = None, is_news: bool = True) -> int:
        return await self._put(key, value, revision, _ttl(ttl_s), is_news=is_news)

    async def delete(self, key: str, revision: int) -> None:
        await self._put(key, b"", revision, {_GONE: "deleted", **_ttl(_MARKERS_S)})

    async def _put(self, key: str, value: bytes, revision: int, headers: dict[str, str], *, is_news: bool = True) -> int:
        put = await self._publish(self._key_subject(key), value, revision, headers)
        if is_news:
            with contextlib.suppress(EngineAway):  # those who watch look again by themselves
                await self._reach(lambda: self._client.publish(self._hint_subject(key)))
        return put

    async def watch(self, prefix: str) -> AsyncIterator[tuple[Entry, ...]]:
        subject = self._key_subject(f"{prefix}>")
        known: dict[str, int] = {}
        seen, is_first = 0, True
        has_news = asyncio.Event()
        stop: Callable[[], Awaitable[None]] | None = None
        start = len(self._key_subject(""))

        async def hint(_: Msg) -> None:
            has_news.set()

        try:
            while True:
                has_news.clear()
                changes: list[Entry] = []
                try:
                    if stop is None:
                        stop = await self._listen(self._hint_subject(f"{prefix}>"), hint)
                    state = await self._state(self._keys)
                    if state.last_seq < seen:  # the engine has lost its data
                        changes += [Entry(key, 0, None) for key in known]
                        known.clear()
                        seen = 0
                    elif is_first or state.last_seq > seen:
                        for stored in await self._read(self._keys, subject, seen + 1, most=100_000):
                            seen = stored.sequence
                            key = stored.subject[start:]
                            if not stored.is_gone:
                                known[key] = seen
                                changes.append(Entry(key, seen, stored.data))
                            elif known.pop(key, None) is not None:
                                changes.append(Entry(key, seen, None))
                        # Changes of keys elsewhere need not be looked at again, unless a replica has not got all yet.
                    if changes or is_first:
                        is_first = False
                        yield tuple(changes)
                except EngineAway:
                    pass
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(has_news.wait(), LOOK_AGAIN_S)
                    await asyncio.sleep(GATHER_S)
        finally:
            if stop is not None:
                await stop()

    # ---- the log

    async def append(self, source: str, number: int, data: bytes) -> None:
        subject = self._log_subject(source)
        known = self._appended.pop(source) if source in self._appended else None
        sequence, last_number = known or await self._last_of(subject)
        if number > last_number:
            try:
                sequence = await self._publish(subject, data, sequence, {_NUMBER: str(number)})
            except WrongRevision:  # an append that had no answer has been carried out
                sequence, last_number = await self._last_of(subject)
                if number > last_number:
                    sequence = await self._publish(subject, data, sequence, {_NUMBER: str(number)})
        self._appended[source] = (sequence, max(number, last_number))

    async def _last_of(self, subject: str) -> tuple[int, int]:
        """(sequence, number) of a source's last entry, zeros where there is none."""
        found = await self._last(self._log, subject)
        return (0, 0) if found is None else (found.sequence, int(found.headers[_NUMBER]))

    async def read_log(self, after: int) -> LogPage:
        state = await self._state(self._log)
        start = len(self._log_subject(""))
        first = state.first_seq if state.messages else state.last_seq + 1
        if state.last_seq <= after:
            return LogPage((), first, state.last_seq)
        entries: list[LogEntry] = []
        for stored in await self._read(self._log, self._log_subject(">"), max(after + 1, first), most=LOG_PAGE):
            if entries and stored.sequence != entries[-1].sequence + 1:
                break  # a hole: what is kept begins later than it did a moment ago; the next read says so
            entries.append(LogEntry(stored.sequence, stored.subject[start:], int(stored.headers[_NUMBER]), stored.data))
        return LogPage(tuple(entries), first, state.last_seq)

    async def log_news(self, after: int, wait_s: float) -> None:
        news: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        async def hint(_: Msg) -> None:
            if not news.done():
                news.set_result(None)

        try:
            stop = await self._listen(self._log_subject(">"), hint)
        except EngineAway:
            await asyncio.sleep(wait_s)
            return
        try:
            if (await self._state(self._log)).last_seq <= after:  # after the subscription: nothing falls in between
                await asyncio.wait_for(news, wait_s)
        except (TimeoutError, EngineAway):
            return
        finally:
            await stop()

    async def close(self) -> None:
        with contextlib.suppress(nats.errors.Error, OSError):
            await self._client.close()

    # ---- streams

    async def _publish(self, subject: str, data: bytes, expected: int, headers: dict[str, str]) -> int:
        """Put a message into its stream where the last one of its subject has this sequence; its own."""
        headers = {**headers, api.Header.EXPECTED_LAST_SUBJECT_SEQUENCE.value: str(expected)}
        for _ in range(_UNDER_WAY_TRIES):
            try:
                acknowledged = await self._reach(lambda: self._jet.publish(subject, data, headers=headers), data)
                return acknowledged.seq
            except APIError as error:
                if error.err_code == _WRONG_LAST_SEQUENCE:
                    raise WrongRevision(subject) from None
                if error.err_code != _ANOTHER_UNDER_WAY:
                    raise EngineAway(str(error)) from None
            await asyncio.sleep(_UNDER_WAY_S)
        raise EngineAway(f"another message of {subject} is under way")

    async def _state(self, stream: str) -> api.StreamState:
        try:
            info = await self._reach(lambda: self._jet.stream_info(stream))
        except NotFoundError:  # the servers have lost it
            with contextlib.suppress(APIError):  # perhaps too few of them are there yet to keep it: who looks again tries again
                await self._reach(self._make_streams)
            raise EngineAway(f"{stream} was not there") from None
        except APIError as error:
            raise EngineAway(str(error)) from None
        return info.state

    async def _last(self, stream: str, subject: str) -> _Stored | None:
        """The last message of a subject, from the stream's leader: a replica may not have it yet."""
        try:
            found = await self._reach(lambda: self._jet.get_last_msg(stream, subject, direct=False))
        except NotFoundError:
            return None
        except APIError as error:
            raise EngineAway(str(error)) from None
        return _Stored(subject, found.seq or 0, found.data or b"", found.headers or {})

    async def _read(self, stream: str, subject: str, sequence: int, *, most: int) -> list[_Stored]:
        """Messages of these subjects from this sequence on, in order. Source: ADR-31, "Batched requests"."""
        return await self._reach(lambda: self._read_batch(stream, subject, sequence, most))

    async def _read_batch(self, stream: str, subject: str, sequence: int, most: int) -> list[_Stored]:
        found: list[_Stored] = []
        inbox = self._client.new_inbox()
        subscription = await self._client.subscribe(inbox)
        try:
            asked = {"seq": sequence, "batch": most, "next_by_subj": subject}
            await self._client.publish(f"$JS.API.DIRECT.GET.{stream}", json.dumps(asked).encode(), reply=inbox)
            while True:
                message = await subscription.next_msg(timeout=_ANSWER_S)
                headers = message.headers or {}
                if "Status" in headers:  # 204: that was all; 404: there is nothing; 503: nobody serves the stream
                    if headers["Status"] == "503":
                        raise EngineAway(f"nobody serves {stream}")
                    return found
                found.append(_Stored(headers["Nats-Subject"], int(headers["Nats-Sequence"]), message.data, headers))
        finally:
            await subscription.unsubscribe()


def _ttl(ttl_s: int | None) -> dict[str, str]:
    return {} if ttl_s is None else {api.Header.MSG_TTL.value: str(ttl_s)}


@contextlib.contextmanager
def _told_as_away() -> Iterator[None]:
    """What the client library says of an engine that is not there; NoRespondersError and APIError are the callers' own."""
    try:
        yield
    except (nats.errors.NoRespondersError, APIError):
        raise
    except (nats.errors.Error, JetStreamError, TimeoutError, OSError) as error:
        raise EngineAway(str(error) or type(error).__name__) from None


async def _log_error(error: Exception) -> None:
    _logger.debug("NATS: %r", error)
