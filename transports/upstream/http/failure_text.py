"""Why a connection failed, in words for people."""

from __future__ import annotations

import os
import ssl


def failure_text(error: BaseException) -> str:
    """The cause in words: the system's own where there is one, without addresses."""
    system_error = getattr(error, "certificate_error", None) or getattr(error, "os_error", None) or error
    if isinstance(system_error, ssl.SSLCertVerificationError):
        return f"the server's certificate is not accepted: {system_error.verify_message}"
    if isinstance(system_error, ssl.SSLError):  # its errno is OpenSSL's, not the system's
        return f"TLS failed: {(system_error.reason or type(system_error).__name__).replace('_', ' ').lower()}"
    if (number := getattr(system_error, "errno", None)) is not None and number > 0:
        return os.strerror(number)  # asyncio puts the address into the error's own text
    return getattr(system_error, "strerror", None) or str(system_error) or type(error).__name__
