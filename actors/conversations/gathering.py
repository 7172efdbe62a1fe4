"""A question to every backend of an endpoint, whose answers become one: lists, `server/discover`, `logging/setLevel`."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Sequence
from typing import ClassVar

import attrs
import msgspec

from mcp_gateway.actors.messages.calls import CallAnswered, CallFailed
from mcp_gateway.transports.ports.edge_port import AnswerSink, Exchange
from mcp_gateway.transports.ports.failure import Fate
from mcp_gateway.transports.protocol.curation.search_tools import found
from mcp_gateway.transports.protocol.mcp import jsonrpc
from mcp_gateway.transports.protocol.mcp.error_codes import METHOD_NOT_FOUND, error_code
from mcp_gateway.transports.protocol.mcp.jsonrpc import Request, Response
from mcp_gateway.transports.protocol.mcp.refusals import Refused
from mcp_gateway.transports.protocol.mcp.revisions import LIST_MEMBERS
from mcp_gateway.transports.protocol.merging.merged_server import (
    LIST_PAGE_ITEMS,
    BackendAnswer,
    MergedList,
    is_private,
    item_count,
    list_position,
    merged_discover,
    merged_list,
)
from mcp_gateway.transports.protocol.merging.naming import Naming

from .conversation import Conversation, has_turned_away, may_go_elsewhere
from .desk import CallWish, Desk
from .session_repair import Repair, SessionRepair


@attrs.frozen
class _Question:
    """One call of a gathering, or what waits until its session is open again.

    excluded: the replicas that could not be reached with it or with the pages before.
    repair:   that has opened the session which it is asked in.
    """

    backend: str
    message: Request
    excluded: frozenset[str] = frozenset()
    repair: SessionRepair | None = None


class AskAll(Conversation):
    """A question to every backend of the endpoint, whose answers become one: lists, `server/discover`, `logging/setLevel`.

    One backend never spoils the rest: who has not answered by the fan-out deadline is named as missing. A backend that has lost
    the client's session, or was down when it began, gets it again: nothing that is gathered does harm when asked twice.
    """

    def __init__(self, exchange: Exchange, sink: AnswerSink, desk: Desk) -> None:
        super().__init__(exchange, sink, desk)
        self._namings = desk.namings(exchange)
        self._deadlines_s = {each.backend: desk.fan_out_deadline_s(exchange, each.backend) for each in self._namings}
        self._session = exchange.session
        self._questions: dict[int, _Question] = {}
        self._repairs: dict[str, tuple[SessionRepair, _Question]] = {}
        self._results: dict[str, list[bytes]] = {}
        self._missing: dict[str, str] = {}
        self._failures: list[CallFailed] = []
        self._errors: list[CallAnswered] = []
        self._upstream_s = 0.0

    def _start(self) -> None:
        for naming in self._namings:
            self._ask(_Question(naming.backend, self._first_message()))

    def _first_message(self) -> Request:
        assert isinstance(self.exchange.message, Request)
        return self.exchange.message

    def _ask(self, question: _Question) -> None:
        call_id = self._call(
            CallWish(
                message=question.message,
                backend=question.backend,
                session=self._session,
                excluded=question.excluded,
                deadline_s=self._deadlines_s[question.backend],
            )
        )
        self._questions[call_id] = question

    def _call_in_time(self, wish: CallWish) -> int:
        """A call of a repair: it has the time that its backend has."""
        return self._call(msgspec.structs.replace(wish, deadline_s=self._deadlines_s[wish.backend]))

    def _on_answer(self, answer: CallAnswered) -> None:
        repair = self._repair_with(answer.call_id)
        if repair is not None:
            self._on_repair(repair, repair.answered(answer))
        else:
            self._on_result(self._questions.pop(answer.call_id), answer)

    def _on_result(self, question: _Question, answer: CallAnswered) -> None:
        self.desk.note_punctuality(question.backend, was_late=False)
        self._upstream_s = max(self._upstream_s, answer.upstream_s)
        response = answer.response
        if response is None or not response.result:
            if response is not None and response.error:
                self._errors.append(answer)
            if response is not None and error_code(response.error) == METHOD_NOT_FOUND:
                # A server without this feature has nothing to add, and nothing is missing.
                self._results.setdefault(answer.backend, [])
            else:
                self._missing[answer.backend] = "answered with an error"
        else:
            self._results.setdefault(answer.backend, []).append(response.result)
            following = self._following(answer.backend, response.result)
            if following is not None:
                self._ask(attrs.evolve(question, message=following))
        self._conclude_when_done()

    def _on_failure(self, failure: CallFailed) -> None:
        repair = self._repair_with(failure.call_id)
        if repair is not None:
            self._on_failed_repair(repair, failure)
            return
        question = self._questions.pop(failure.call_id)
        can_go_elsewhere = may_go_elsewhere(failure, question.excluded)
        question = _turned_away(question, failure)
        if can_go_elsewhere and self._session is None:
            self._ask(question)
            return
        is_lost = failure.why.fate is Fate.SESSION_LOST or (can_go_elsewhere and failure.why.reason != "pool_exhausted")
        may_reopen = self._session is not None and not self.desk.is_session_ended(self._session)
        if is_lost and may_reopen and (question.repair is None or question.repair.may_be_outdated):
            self._reopen(question)
        else:
            self._is_missing(failure)

    def _is_missing(self, failure: CallFailed) -> None:
        if failure.why.reason == "upstream_timeout":
            self.desk.note_punctuality(failure.backend, was_late=True)
        self._missing[failure.backend] = _why(failure)
        self._failures.append(failure)
        self._conclude_when_done()

    # ---- a backend that has lost the session

    def _reopen(self, question: _Question) -> None:
        assert self._session is not None
        backend = question.backend
        naming = next((each for each in self._namings if each.backend == backend), None)
        repair = SessionRepair(self._call_in_time, self._dismiss, self.desk, self._session, backend, naming)
        self._repairs[backend] = repair, question
        self._on_repair(repair, repair.start(question.excluded))

    def _repair_with(self, call_id: int) -> SessionRepair | None:
        return next((repair for repair, _ in self._repairs.values() if repair.owns(call_id)), None)

    def _on_repair(self, repair: SessionRepair, progress: Repair) -> None:
        if progress is Repair.GOING_ON:
            return
        _, question = self._repairs.pop(repair.backend)
        if progress is Repair.DONE:
            self._session = self.desk.refresh_session(repair.session)  # another backend's may have been opened meanwhile
            self._results.pop(repair.backend, None)  # cursors of the lost session mean nothing to the new one
            self._ask(attrs.evolve(question, message=self._first_message(), repair=repair))
        else:
            self._missing[repair.backend] = "session_not_found"
            self._conclude_when_done()

    def _on_failed_repair(self, repair: SessionRepair, failure: CallFailed) -> None:
        question = self._repairs[repair.backend][1]
        can_go_elsewhere = may_go_elsewhere(failure, question.excluded)
        question = _turned_away(question, failure)
        self._repairs[repair.backend] = repair, question
        progress = repair.failed(failure, question.excluded, can_go_elsewhere=can_go_elsewhere)
        if progress is Repair.UNREACHABLE:
            del self._repairs[repair.backend]
            self._is_missing(failure)
        else:
            self._on_repair(repair, progress)

    # ---- the end

    def _conclude_when_done(self) -> None:
        if not self._open_calls:
            self._conclude_or_refuse()

    def _conclude_or_refuse(self) -> None:
        request_id = self._request_id() or jsonrpc.NULL
        self._fill_in()
        if not self._results and (self._failures or self._errors):
            if self._errors and not self._failures:
                first = self._errors[0]
                assert first.response is not None
                body = jsonrpc.encode_response(Response(request_id, b"", first.response.error))
                self._answer(first.status, body, {}, first.backend, self._upstream_s)
            else:
                worst = next((each for each in self._failures if each.why.fate is not Fate.UNSUPPORTED), self._failures[0])
                self._refuse(self._refusal_for(worst), "")
            return
        try:
            body = jsonrpc.encode_result(request_id, self._merged())
        except Refused as refused:
            refused.request_id = request_id
            self._refuse(refused, "")
        else:
            self._answer_once_known(200, body, "", self._upstream_s)

    def _following(self, backend: str, result: bytes) -> Request | None:
        """What to ask this backend next, if there is more."""
        return None

    def _fill_in(self) -> None:
        """All have answered, or will not: what stands in for the missing ones."""

    def _merged(self) -> object:
        raise NotImplementedError


def _why(failure: CallFailed) -> str:
    """The reason; of a server that is starting since when, so that people wait rather than search."""
    if failure.why.fate is not Fate.STARTING:
        return failure.why.reason
    return f"{failure.why.reason}; {failure.why.text.removeprefix(f'backend {failure.backend!r}: ')}"


def _turned_away(question: _Question, failure: CallFailed) -> _Question:
    """The question, with the replica that never saw it passed over from now on."""
    return attrs.evolve(question, excluded=question.excluded | {failure.replica}) if has_turned_away(failure) else question


class SetLevel(AskAll):
    """`logging/setLevel` for every backend that has logging."""

    def _merged(self) -> object:
        if self._session is not None:
            message = self._first_message()
            self._changed = self.desk.note_facts(self._session, "", message.method, message.params)
        return {}


class Discover(AskAll):
    """`server/discover` of the merged server."""

    def _merged(self) -> object:
        answers = []
        for naming in self._namings:
            for result in self._results.get(naming.backend, ()):
                try:
                    answers.append((naming.backend, msgspec.json.decode(result)))
                except (msgspec.DecodeError, RecursionError) as error:
                    self._missing[naming.backend] = f"malformed answer: {error}"
        if not answers and any(self._results.values()):
            raise Refused("upstream_failed", "no backend sent an answer that can be read", data={"missing": self._missing})
        more_come = any(failure.why.fate is Fate.STARTING for failure in self._failures)
        merged = merged_discover(answers, self._missing, self.desk.server_info, more_come=more_come)
        if instructions := self.desk.instructions(self.exchange):
            merged["instructions"] = instructions
        return merged


class ListAll(AskAll):
    """A list of the merged server: every page of every backend, then our own pages of that.

    The pages that follow the one that is asked for are kept for the same session, or for all where they are public: a client that
    reads on has no backend asked again, and reads one state of the list. The others ask anew for every page.

    Of more than ASKED_AT_ONCE backends no more are asked, in their order, than the page takes: what it says of missing ones, and
    of how long it is good, is said of these. The next page begins at the backend where this one ends.

    A backend that pages for ever is cut at MAX_PAGES, one that pages in circles or by no cursor where that shows, and named as
    incomplete. For one that does not answer, the list that it gave last stands in for a while; it is named as missing as well.
    """

    MAX_PAGES = 100
    ASKED_AT_ONCE = 64
    HOLDS_PAGES: ClassVar[bool] = True

    def __init__(self, exchange: Exchange, sink: AnswerSink, desk: Desk) -> None:
        super().__init__(exchange, sink, desk)
        self._pages_seen: dict[str, set[tuple[bytes, bytes]]] = {}  # {backend: (items, cursor) of each page since its first}
        self._is_part = self.HOLDS_PAGES and len(self._namings) > self.ASKED_AT_ONCE and not self._needs_all()
        self._ahead: Sequence[Naming] = ()  # who has not been asked yet

    def _needs_all(self) -> bool:
        """Whether nothing can be shown before all is known."""
        return False

    def _start(self) -> None:
        message = super()._first_message()
        try:
            start = list_position(message.params, message.id)
        except Refused as refused:
            self._refuse(refused, "")
            return
        held = self.desk.held_page(self.exchange, start) if self.HOLDS_PAGES and start else None
        if held is not None:
            self._answer(200, jsonrpc.encode_response(Response(message.id, held, b"")), {}, "", 0.0)
            return
        if isinstance(start, int):
            self._first_item = start
        else:
            backend, self._first_item = start
            self._is_part = True
            names = [each.backend for each in self._namings]
            if backend not in names:
                self._refuse(Refused("invalid_params", "the cursor points to a backend that is gone", request_id=message.id), "")
                return
            self._namings = self._namings[names.index(backend) :]
        if self._is_part:
            self._namings, self._ahead = (), self._namings
            self._ask_next(self.ASKED_AT_ONCE)
        else:
            super()._start()

    def _ask_next(self, count: int) -> None:
        """Ask so many more backends, from now on in the time that each has."""
        following, self._ahead = self._ahead[:count], self._ahead[count:]
        self._namings = (*self._namings, *following)
        for naming in following:
            self._deadlines_s[naming.backend] = self.desk.fan_out_deadline_s(self.exchange, naming.backend)
            self._ask(_Question(naming.backend, self._first_message()))

    def _conclude_or_refuse(self) -> None:
        if self._ahead:
            method = self._first_message().method
            here = sum(item_count(method, page) for pages in self._results.values() for page in pages)
            lacking = self._first_item + LIST_PAGE_ITEMS + 1 - here
            if lacking > 0:
                average = max(1, here) / len(self._namings)
                self._ask_next(math.ceil(lacking / average) + 1)
                return
        super()._conclude_or_refuse()

    def _first_message(self) -> Request:
        message = super()._first_message()
        parameters = jsonrpc.members(message.params)
        if "cursor" not in parameters:
            return message
        del parameters["cursor"]
        return Request(message.id, message.method, msgspec.json.encode(parameters))

    def _following(self, backend: str, result: bytes) -> Request | None:
        message = self._first_message()
        try:
            page = jsonrpc.members(result)
        except msgspec.DecodeError:
            return None  # `merged_list` says so
        cursor = page.get("nextCursor")
        if cursor is None or bytes(cursor) == jsonrpc.NULL:
            return None
        # A cursor alone says nothing of where it leads. Source: MCP 2026-07-28, server/utilities/pagination, guideline 3.
        if len(self._results[backend]) == 1:
            self._pages_seen[backend] = set()
        seen = bytes(page.get(LIST_MEMBERS[message.method][0], b"")), bytes(cursor)
        if not bytes(cursor).startswith(b'"'):
            self._missing[backend] = "list cut at a cursor that is no string"
        elif seen in self._pages_seen[backend]:
            self._results[backend].pop()
            self._missing[backend] = "list cut where its pages go in circles"
        elif len(self._results[backend]) >= self.MAX_PAGES:
            self._missing[backend] = f"list cut after {self.MAX_PAGES} pages"
        if backend in self._missing:
            return None
        self._pages_seen[backend].add(seen)
        parameters = {**jsonrpc.members(message.params), "cursor": cursor}
        return Request(message.id, message.method, msgspec.json.encode(parameters))

    def _merged_list(self) -> MergedList:
        message = self._first_message()
        answers = [BackendAnswer(naming, self._shown_pages(naming.backend, message.method)) for naming in self._namings]
        merged = merged_list(
            message.method,
            answers,
            self._missing,
            self.exchange.revision,
            self.desk.server_info,
            is_part=self._is_part,
            goes_on=self._ahead[0].backend if self._ahead else "",
        )
        away = {failure.backend for failure in self._failures}
        for backend, why in merged.flaws.items():
            if backend not in away:
                self.desk.note_flaw(backend, message.method, why)
        return merged

    def _merged(self) -> object:
        merged = self._merged_list()
        page = merged.page(self._first_item)
        if self.HOLDS_PAGES and (self._session is not None or merged.is_public):
            following = merged.pages_after(self._first_item)
            self.desk.hold_pages(self.exchange, {start: msgspec.json.encode(each) for start, each in following.items()})
        return page

    def _shown_pages(self, backend: str, method: str) -> list[bytes]:
        """What this client may see, of answers and of what stands in for them: kept lists are everybody's."""
        pages = []
        for page in self._results.get(backend, []):
            with contextlib.suppress(msgspec.DecodeError):  # `merged_list` says so, and takes nothing of it
                page = self.desk.shown_list(self.exchange, backend, method, page)
            pages.append(page)
        return pages

    def _fill_in(self) -> None:
        method = self._first_message().method
        for naming in self._namings:
            self._remember_or_recall(naming.backend, method)

    def _remember_or_recall(self, backend: str, method: str) -> None:
        pages = self._results.get(backend, [])
        if backend not in self._missing:
            if pages and not any(is_private(page) for page in pages):
                self.desk.remember_list(backend, method, self.exchange.revision, pages)
            return
        known = self.desk.last_known_list(backend, method, self.exchange.revision)
        if known is not None and len(known[0]) > len(pages):
            self._results[backend], age_s = list(known[0]), known[1]
            self._missing[backend] += f"; this is its list of {age_s:.0f} s ago"


class ListTools(ListAll):
    """`tools/list` where a list may be too long to be shown."""

    def _needs_all(self) -> bool:
        return self.desk.searched_list is not None

    def _merged_list(self) -> MergedList:
        merged = super()._merged_list()
        searched = self.desk.searched_list
        return merged if searched is None else attrs.evolve(merged, items=searched.shown(merged.items))


class SearchTools(ListAll):
    """`search_tools`: the list of tools that the client would read, and what of it answers the question."""

    HOLDS_PAGES = False

    def _merged(self) -> object:
        assert self.exchange.question is not None
        tools = self._merged_list().items
        return found(tools, self.exchange.question, self.desk.tool_index(tools), self.exchange.revision)


class ListTasks(ListAll):
    """`tasks/list` of a session: what its servers run for it. Nothing stands in for one that is away: tasks are nobody else's.

    Every page tells of what they do now.
    """

    HOLDS_PAGES = False

    def _fill_in(self) -> None:
        """Nothing."""
