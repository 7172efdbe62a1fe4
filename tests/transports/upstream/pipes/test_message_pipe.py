"""How a connection has ended: with places on this machine for its operator, without them for clients."""

from __future__ import annotations

import pytest

from mcp_gateway.transports.upstream.pipes.message_pipe import PipeClosed


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("'/opt/tools/server' cannot be started: Permission denied", "'server' cannot be started: Permission denied"),
        ("its folder '~/work/files' is not there", "its folder 'files' is not there"),
        ("python: can't open file '/home/me/x.py': [Errno 2]", "python: can't open file 'x.py': [Errno 2]"),
        ("./bin/run and ../bin/run", "run and run"),
        ('File "/a/b/c.py", line 3', 'File "c.py", line 3'),
        ("no connection", "no connection"),
        ("a / b, application/json, 1/2", "a / b, application/json, 1/2"),
        ("see https://example.com/docs/x", "see https://example.com/docs/x"),
    ],
)
def test_clients_are_not_told_where_things_are(text: str, told: str) -> None:
    closed = PipeClosed(text)
    assert (str(closed), closed.told) == (text, told)
