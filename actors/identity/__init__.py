"""Whoever keeps what must be asked of issuers to know their tokens: keys, and what they say of opaque tokens."""
