"""Which conversation serves an exchange. Pure."""

from __future__ import annotations

from mcp_gateway.transports.ports.edge_port import AnswerSink, Exchange
from mcp_gateway.transports.ports.hash_keys import owner_of, principal_of
from mcp_gateway.transports.ports.request_kind import RequestKind
from mcp_gateway.transports.protocol.mcp.jsonrpc import Message, Notification, Request, Response
from mcp_gateway.transports.protocol.mcp.refusals import Refused
from mcp_gateway.transports.protocol.mcp.revisions import LIST_MEMBERS, TASK_METHODS, is_modern
from mcp_gateway.transports.protocol.mcp.tasks import declares_extension, task_id_of, undeclared_tasks
from mcp_gateway.transports.protocol.merging.naming import Naming
from mcp_gateway.transports.protocol.merging.task_names import named_tasks

from .conversation import Conversation, stands_alone_for
from .desk import Desk
from .gathering import Discover, ListAll, ListTasks, ListTools, SearchTools, SetLevel
from .listening import Listen, ListenAlone
from .relay import RelayList, RelayRequest
from .session_opening import OpenSession
from .session_stream import SessionStream
from .telling import TellServers


def conversation_for(exchange: Exchange, sink: AnswerSink, desk: Desk) -> Conversation:
    """The conversation that serves an exchange.

    Raises: Refused.
    """
    message = exchange.message
    namings = desk.namings(exchange)
    if exchange.endpoint and not namings:
        request_id = message.id if isinstance(message, Request) else None
        raise Refused("no_backend", f"no backend {exchange.endpoint!r}", request_id=request_id)
    if isinstance(message, Request):
        return _for_request(exchange, message, namings, sink, desk)
    if exchange.kind is RequestKind.STREAM:
        return SessionStream(exchange, sink, desk)
    if exchange.kind is RequestKind.TERMINATE:
        return TellServers(exchange, sink, desk, (), RequestKind.TERMINATE)
    backends = [each.backend for each in exchange.session.upstreams] if exchange.session is not None else []
    told: list[tuple[str, Message | None]] = []
    if isinstance(message, Notification):
        if not message.method.startswith("notifications/"):  # a server might run it all the same, whatever tool it names
            raise Refused("invalid_request", f"{message.method[:100]!r} is no notification")
        told = [(backend, message) for backend in backends]
    elif isinstance(message, Response):
        told = [_answered(exchange, message, desk)]
    return TellServers(exchange, sink, desk, told, RequestKind.MESSAGE)


def _for_request(exchange: Exchange, message: Request, namings: tuple[Naming, ...], sink: AnswerSink, desk: Desk) -> Conversation:
    if not namings:
        raise Refused("no_backend", "no backend is configured", request_id=message.id)
    stands_alone = stands_alone_for(exchange, namings)
    method = message.method
    if method == "initialize" and not is_modern(exchange.revision):
        return OpenSession(exchange, sink, desk)
    if method == "subscriptions/listen":
        if not stands_alone:
            return Listen(exchange, sink, desk)
        _check_listened_tasks(exchange, message, desk)
        return ListenAlone(exchange, sink, desk, namings[0].backend, RequestKind.STREAM)
    if method in TASK_METHODS:
        return RelayRequest(exchange, sink, desk, _backend_of_task(exchange, message, namings, desk, stands_alone=stands_alone))
    if method == "tools/list" and desk.searched_list is not None:
        return (ListTools if exchange.question is None else SearchTools)(exchange, sink, desk)
    if stands_alone:
        relay = RelayList if method in LIST_MEMBERS else RelayRequest
        return relay(exchange, sink, desk, namings[0].backend)
    if method == "tasks/list":
        return ListTasks(exchange, sink, desk)
    if method in LIST_MEMBERS:
        return ListAll(exchange, sink, desk)
    if method == "server/discover":
        return Discover(exchange, sink, desk)
    if method == "logging/setLevel":
        return SetLevel(exchange, sink, desk)
    return RelayRequest(exchange, sink, desk, "")


def _backend_of_task(exchange: Exchange, message: Request, namings: tuple[Naming, ...], desk: Desk, *, stands_alone: bool) -> str:
    """Whose task the request is about. What we have not sealed may be an id of the one server that there is, but for clients that
    are known: their tasks are theirs alone.

    Raises: Refused.
    """
    shown = task_id_of(message.params) or ""
    task = desk.read_task(shown)
    if task is None and stands_alone and not principal_of(exchange.hash_keys):
        return namings[0].backend
    if task is not None and task.principal == owner_of(exchange.hash_keys):
        for naming in namings:
            if naming.backend == task.backend:
                return task.backend
    if is_modern(exchange.revision) and not declares_extension(message.params):
        raise undeclared_tasks(message.id)
    raise Refused("invalid_params", f"there is no task {shown[:200]!r} here", request_id=message.id)


def _check_listened_tasks(exchange: Exchange, message: Request, desk: Desk) -> None:
    """Raises: Refused where a client that is known wants to hear of a task that is not its own."""
    if not principal_of(exchange.hash_keys):
        return
    for shown in named_tasks(message.method, message.params):
        task = desk.read_task(shown)
        if task is None or task.principal != owner_of(exchange.hash_keys):
            raise Refused("invalid_params", f"there is no task {shown[:200]!r} here", request_id=message.id)


def _answered(exchange: Exchange, response: Response, desk: Desk) -> tuple[str, Message]:
    """(the backend whose question the client's response answers, the response with the server's own id)

    Raises: Refused.
    """
    session, question = exchange.session, desk.read_question(response.id)
    is_of_session = session is not None and question is not None and question.session == session.key
    if not is_of_session or session is None or question is None:
        raise Refused("invalid_request", "the response answers no request of this session")
    # Another cell may have opened the session anew at that server, and the question is one since.
    if not question.is_asked_in(session) and not question.is_asked_in(desk.refresh_session(session)):
        raise Refused("invalid_request", "the response answers no request of this session as it is now")
    return question.backend, response.to(question.id)
