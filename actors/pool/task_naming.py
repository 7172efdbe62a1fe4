"""The ids of one server's tasks as clients know them, and back. Pure."""

from __future__ import annotations

import attrs

from mcp_gateway.transports.protocol.mcp.jsonrpc import Message, Request, Response
from mcp_gateway.transports.protocol.merging.naming import Naming
from mcp_gateway.transports.protocol.merging.task_names import inner_task_message, outer_task_message, outer_task_result
from mcp_gateway.transports.protocol.sealed.sealing import Seal
from mcp_gateway.transports.protocol.sealed.task_ids import TaskId, read_task_id, sealed_task_id


@attrs.frozen
class TaskNaming:
    """Seals the ids of one replica's tasks. Those of tasks that the gateway runs itself are sealed and stay so."""

    seal: Seal
    naming: Naming
    replica: str

    def inner(self, message: Message) -> Message:
        """What a client says, as the server shall read it."""
        return inner_task_message(message, self._inner_id)

    def outer(self, message: Message, principal: str) -> Message:
        """What the server says before its answer. principal: whose client this is, or ""."""
        return outer_task_message(message, self.naming, lambda shown: self._outer_id(shown, principal))

    def outer_answer(self, request: Request, response: Response, principal: str) -> Response:
        if not response.result or response.is_plain:
            return response
        result = outer_task_result(request.method, response.result, self.naming, lambda shown: self._outer_id(shown, principal))
        return Response(response.id, result, b"")

    def _outer_id(self, shown: str, principal: str) -> str:
        if read_task_id(self.seal, shown) is not None:
            return shown
        return sealed_task_id(self.seal, TaskId(self.naming.backend, self.replica, principal, shown))

    def _inner_id(self, shown: str) -> str:
        task = read_task_id(self.seal, shown)
        return shown if task is None or task.cell else task.task
