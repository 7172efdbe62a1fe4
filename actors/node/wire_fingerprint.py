"""What processes of a node say to each other, as one number: those of two versions understand each other where it is the same.

Read when this module is loaded, before anybody puts other files in the place of these.
"""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path
from typing import Final

from mcp_gateway import actors, config, transports

_ACTORS, _CONFIG, _TRANSPORTS = (Path(package.__file__ or "").parent for package in (actors, config, transports))
_SPOKEN: Final = (
    *(_ACTORS / "messages").glob("*.py"),
    *(_TRANSPORTS / "ports").glob("*.py"),
    *(path for path in _CONFIG.glob("*.py") if path.name != "version.py"),
    _TRANSPORTS / "protocol" / "mcp" / "jsonrpc.py",
    _TRANSPORTS / "protocol" / "topics" / "topic_log.py",
    _ACTORS / "runtime" / "packet_seal.py",
)
"""Where the classes are that travel between processes, the settings of cells among them. Too much rather than too little."""


def _fingerprint() -> str:
    digest = sha256()
    for path in sorted(_SPOKEN):
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


WIRE_FINGERPRINT: Final = _fingerprint()
