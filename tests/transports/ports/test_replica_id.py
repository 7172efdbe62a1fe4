"""What names a replica: a key of tables, a value of messages, and the words of health and forwarding."""

from __future__ import annotations

import pickle

from mcp_gateway.transports.ports.replica_id import ReplicaId

ONE = ReplicaId("files", "http://127.0.0.1:3001/mcp")


def test_one_replica_is_one_key_and_the_same_address_in_another_backend_is_another_one() -> None:
    table = {ONE: 1, ReplicaId("notes", ONE.address): 2}
    assert table[ReplicaId(backend="files", address="http://127.0.0.1:3001/mcp")] == 1
    assert len(table) == 2


def test_it_is_the_same_one_in_another_process() -> None:
    assert pickle.loads(pickle.dumps(ONE)) == ONE


def test_people_read_its_backend_and_its_address() -> None:
    assert str(ONE) == "files/http://127.0.0.1:3001/mcp"
