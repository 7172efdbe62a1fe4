"""TLS towards a server: whom the gateway trusts, and the certificate that it shows, read again when its files change."""

from __future__ import annotations

import os
import ssl

from mcp_gateway.config.backend_settings import BackendSettings


class ClientTls:
    """certificate, key: PEM files; "" shows none."""

    def __init__(self, certificate: str = "", key: str = "") -> None:
        self.files = tuple(os.path.expanduser(path) for path in (certificate, key) if path)
        self._marks: tuple[tuple[int, int], ...] | None = None
        self._context: ssl.SSLContext | None = None

    @classmethod
    def of(cls, backend: BackendSettings) -> ClientTls:
        return cls(backend.client_certificate, backend.client_key)

    def context(self) -> ssl.SSLContext:
        """For one more connection.

        Raises: OSError where the files cannot be used now; one of ssl where they do not fit each other.
        """
        marks = tuple((status.st_mtime_ns, status.st_ino) for status in map(os.stat, self.files))
        if self._context is None or marks != self._marks:
            context = ssl.create_default_context()
            if self.files:
                certificate, key = self.files
                context.load_cert_chain(certificate, key, password=_no_passphrase)
            self._context, self._marks = context, marks
        return self._context


def _no_passphrase() -> str:
    """Instead of asking for one on the terminal."""
    raise OSError("the key has a passphrase")
