"""TLS towards clients: a context from PEM files that is made again when they change, and who a client's certificate is about."""

from __future__ import annotations

import base64
import hashlib
import logging
import os
import re
import ssl
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Final, TypeAlias

import attrs

from mcp_gateway.config.identity_settings import TlsSettings

if TYPE_CHECKING:  # commands ask this module whether a gateway can start, and need no web server for that
    from cryptography import x509
    from tornado.iostream import IOStream

_logger = logging.getLogger(__name__)
_PEM_LIST: Final = re.compile(rb"-----BEGIN X509 CRL-----.*?-----END X509 CRL-----", re.DOTALL)


class TlsUnusableError(Exception):
    """The files cannot be used; the text names what is wrong with which."""


class ServerTls:
    """The context for new connections. Those that are open keep what they were opened with; whose client's certificate is taken
    back meanwhile is told by `is_revoked`.

    Raises: TlsUnusableError where the files cannot be used now; later ones that cannot leave those that could.
    """

    def __init__(self, settings: TlsSettings) -> None:
        self._settings = settings
        self._seen = self._signature()
        self._is_failing = False
        self.context, self._revoked = _context(settings)

    def refresh(self) -> bool:
        """Look at the files; whether there is another context now.

        Certificate and key are two files, and between their writes they do not fit each other: whatever fails is tried again.
        """
        signature = self._signature()
        if signature == self._seen and not self._is_failing:
            return False
        try:
            self.context, self._revoked = _context(self._settings)
        except TlsUnusableError as error:
            if not self._is_failing or signature != self._seen:
                _logger.warning("the certificate of before is used further: %s", error)
            self._is_failing, self._seen = True, signature
            return False
        self._is_failing, self._seen = False, signature
        _logger.info("certificates were read again")
        return True

    def is_revoked(self, stream: IOStream) -> bool:
        """Whether the list names the certificate of the client at the other end; one that has expired names those it did."""
        try:
            shown = _shown(stream) if self._revoked else None
        except ValueError:  # it shakes hands still, by the list of before
            return True
        return shown is not None and _named(shown) in self._revoked

    def _signature(self) -> tuple[tuple[int, int, int] | None, ...]:
        """What changes with a file, or with what a link leads to."""
        settings = self._settings
        return tuple(
            _mark(path) for path in (settings.certificate, settings.key, settings.client_ca, settings.client_crl) if path
        )


def _mark(path: str) -> tuple[int, int, int] | None:
    try:
        status = os.stat(os.path.expanduser(path))
    except OSError:
        return None
    return status.st_mtime_ns, status.st_ino, status.st_size


_Named: TypeAlias = "tuple[x509.Name, int]"
"""Issuer and serial number: what a list names a certificate by. Source: RFC 5280, section 5.1."""


def _context(settings: TlsSettings) -> tuple[ssl.SSLContext, frozenset[_Named]]:
    """The context, and which certificates of clients are taken back.

    Source: RFC 9325, sections 3.1.1 and 3.3 to 3.5: TLS 1.2 at least, neither compression nor renegotiation.
    """
    revoked: frozenset[_Named] = frozenset()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION | ssl.OP_CIPHER_SERVER_PREFERENCE
    context.set_alpn_protocols(["http/1.1"])
    certificate, key, authority = (
        Path(path).expanduser() for path in (settings.certificate, settings.key, settings.client_ca or ".")
    )
    try:
        # A key with a passphrase would ask on the terminal, and wait there.
        context.load_cert_chain(certificate, key, password=_no_passphrase)
    except (OSError, ValueError) as error:
        raise TlsUnusableError(f"tls: {certificate} with {key}: {_words(error)}") from error
    if settings.client_ca:
        try:
            context.load_verify_locations(authority)
        except (OSError, ValueError) as error:
            raise TlsUnusableError(f"tls.client_ca: {authority}: {_words(error)}") from error
        if settings.client_crl:
            revoked = _take_revocations(context, Path(settings.client_crl).expanduser())
        context.verify_mode = ssl.CERT_REQUIRED if settings.client_required else ssl.CERT_OPTIONAL
        _x509()  # before the first client waits for it
    return context, revoked


def _x509() -> ModuleType:
    """What reads certificates: it takes 3 MB and 40 ms, and most gateways ask no client for one."""
    from cryptography import x509

    return x509


def _take_revocations(context: ssl.SSLContext, path: Path) -> frozenset[_Named]:
    """Refuse certificates that this list names, and all where it is not of now. Source: RFC 5280, section 6.3.

    Raises: TlsUnusableError
    """
    try:
        content = path.read_bytes()
        read = _x509().load_pem_x509_crl
        lists = [read(pem) for pem in _PEM_LIST.findall(content) or (content,)]  # none is no list of nobody
        context.load_verify_locations(path)
    except (OSError, ValueError) as error:
        raise TlsUnusableError(f"tls.client_crl: {path}: {_words(error)}") from error
    context.verify_flags |= ssl.VERIFY_CRL_CHECK_LEAF
    return frozenset((each.issuer, revoked.serial_number) for each in lists for revoked in each)


def _no_passphrase() -> str:
    raise ValueError("the key has a passphrase")


def _words(error: OSError | ValueError) -> str:
    if isinstance(error, ssl.SSLError):
        return error.reason or "no PEM file of its kind"
    return getattr(error, "strerror", None) or str(error)


@attrs.frozen
class ClientCertificate:
    """What TLS has checked of a client.

    subject:    as RFC 4514 writes it; "" where its names are none, though OpenSSL has taken it.
    thumbprint: as tokens that are bound to it have it (`cnf`, `x5t#S256`). Source: RFC 8705, section 3.1.
    expires_ms: since the epoch.
    """

    subject: str
    thumbprint: str
    expires_ms: int


def client_certificate(stream: IOStream) -> ClientCertificate | None:
    """The certificate of the client at the other end; None where it has shown none."""
    shown = _shown(stream)
    return None if shown is None else certificate_in(shown)


def certificate_in(shown: bytes) -> ClientCertificate:
    """What a certificate says, in DER, which TLS has checked."""
    certificate = _x509().load_der_x509_certificate(shown)
    try:
        subject = certificate.subject.rfc4514_string()
    except ValueError:
        subject = ""
    thumbprint = base64.urlsafe_b64encode(hashlib.sha256(shown).digest()).rstrip(b"=").decode()
    return ClientCertificate(subject, thumbprint, int(certificate.not_valid_after_utc.timestamp() * 1000))


def _shown(stream: IOStream) -> bytes | None:
    connection = stream.socket
    return connection.getpeercert(binary_form=True) if isinstance(connection, ssl.SSLSocket) else None


def _named(certificate: bytes) -> _Named:
    read = _x509().load_der_x509_certificate(certificate)
    return read.issuer, read.serial_number
