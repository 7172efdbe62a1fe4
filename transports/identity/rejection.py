"""Why what a client shows makes it nobody. Pure."""

from __future__ import annotations


class CredentialRejected(Exception):
    """The text is for a person, and holds nothing of the credential but names that its maker chose."""


class KeyUnknown(CredentialRejected):
    """None of the issuer's keys that are known here made this token; it may have a new one."""
