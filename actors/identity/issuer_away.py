"""An issuer that cannot say what it must be asked."""

from __future__ import annotations


class IssuerAwayError(Exception):
    """It cannot be asked, or its answer cannot be used. The text is for clients and logs: host and cause, no more."""
