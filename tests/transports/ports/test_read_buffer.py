"""One place for what a thread's connections read, and none that two threads share."""

from __future__ import annotations

import threading

from mcp_gateway.transports.ports.read_buffer import MOST_BYTES, read_buffer


def test_connections_of_one_thread_share_what_they_read_into_and_those_of_two_threads_do_not() -> None:
    own, others = read_buffer(MOST_BYTES), list[memoryview]()
    thread = threading.Thread(target=lambda: others.append(read_buffer(MOST_BYTES)))
    thread.start()
    thread.join()
    own[:3], others[0][:3] = b"own", b"her"
    assert (bytes(own[:3]), bytes(read_buffer(2)), bytes(others[0][:3])) == (b"own", b"ow", b"her")
