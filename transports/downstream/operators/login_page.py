"""`/metrics/login`: an operator's browser shows a token or an API key once, and reads the operators' pages from then on."""

from __future__ import annotations

from html import escape
from typing import Final

from mcp_gateway.transports.downstream.server.credentials import bearer_credential
from mcp_gateway.transports.downstream.server.gate import Gate
from mcp_gateway.transports.downstream.server.incoming import Incoming, method_not_allowed
from mcp_gateway.transports.downstream.server.operator_cookies import OperatorCookies
from mcp_gateway.transports.downstream.server.pages import HTML, page, page_headers, parameters
from mcp_gateway.transports.ports.loop_tasks import HeldTasks
from mcp_gateway.transports.protocol.mcp.refusals import Refused

LOGIN_PATH: Final = "/metrics/login"
_LARGEST_FORM_BYTES: Final = 65_536
_HEADERS: Final = page_headers("'self'")
_FORM: Final = """{problem}<p>Operators see the dashboard and metrics here. Nothing is kept but a cookie, for an hour at most.</p>
<form method="post">
<label>Access token or API key
<input type="password" name="credential" autocomplete="off" required autofocus></label>
<button>Log in</button>
</form>
<form method="post"><input type="hidden" name="out" value="1"><button>Log out</button></form>"""


class LoginEndpoint:
    """Serves it. Pages of other sites cannot send the form: their origin is refused before."""

    def __init__(self, gate: Gate, cookies: OperatorCookies) -> None:
        self._gate = gate
        self._cookies = cookies
        self._tasks = HeldTasks()

    def handle(self, incoming: Incoming) -> None:
        if incoming.method in ("GET", "HEAD"):
            _show(incoming, 200)
        elif incoming.method == "POST":
            self._tasks.start(self._take(incoming))
        else:
            method_not_allowed(incoming, "GET, POST")

    async def _take(self, incoming: Incoming) -> None:
        form = parameters(incoming.body[:_LARGEST_FORM_BYTES].decode(errors="replace"))
        if "out" in form:
            _leave(incoming, "login", self._cookies.farewell)
            return
        try:
            credential = bearer_credential(form.get("credential", "").strip())
            await self._gate.find_operator(incoming, credential)
        except Refused as refused:
            _show(incoming, refused.status, refused.text)
            return
        cookie = self._cookies.cookie_for(credential)
        if cookie is None:
            _show(incoming, 413, "this token is too long for a cookie; have a proxy show it in the header Authorization")
        else:
            _leave(incoming, "dashboard", cookie)


def _leave(incoming: Incoming, where: str, cookie: str) -> None:
    incoming.respond(303, b"", {**_HEADERS, "Location": where, "Set-Cookie": cookie})


def _show(incoming: Incoming, status: int, problem: str = "") -> None:
    shown = f'<p role="alert">This did not work: {escape(problem)}.</p>\n' if problem else ""
    incoming.respond(status, page("Log in", _FORM.format(problem=shown)), _HEADERS, content_type=HTML)
