"""What names one replica in the whole gateway. Pure."""

from __future__ import annotations

from typing import NamedTuple


class ReplicaId(NamedTuple):
    """One server of a backend. A tuple: it is a key of tables that every call looks into, and hashed as fast as one.

    backend: its name in the configuration.
    address: one of `BackendSettings.replica_ids`, where people and metrics read it: without secrets.
    """

    backend: str
    address: str

    def __str__(self) -> str:
        return f"{self.backend}/{self.address}"
