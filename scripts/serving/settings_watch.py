"""Has the settings read again while the gateway serves: when a signal asks for it, or when one of their files has changed."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from typing import Any, Final

from mcp_gateway.config.loader import ConfigError
from mcp_gateway.config.setting_rules import InvalidSetting
from mcp_gateway.config.settings import Settings

from .settings_source import SettingsSource

LOOK_S: Final = 1.0
"""How often the files are looked at. One that has changed is read when it has stayed so for one look: it may be half there."""

_logger = logging.getLogger(__name__)
_Stamp = tuple[int, int, int] | None


class SettingsWatch:
    """source: what `serve` was told. watches_files: whether a changed file is reason enough, see `[gateway] watch_config`."""

    def __init__(self, source: SettingsSource, *, watches_files: bool) -> None:
        self._source = source
        self._paths = _paths(source) if watches_files else ()
        self._read = self._seen = self._stamps()
        self._look_due_s = 0.0
        self._is_asked = False

    def ask(self) -> None:
        """Read them at the next turn; may be called by a signal handler."""
        self._is_asked = True

    def is_due(self, now_s: float) -> bool:
        """Whether they shall be read now. now_s: on the monotonic clock."""
        if self._is_asked:
            return True
        if not self._paths or now_s < self._look_due_s:
            return False
        self._look_due_s = now_s + LOOK_S
        before, self._seen = self._seen, self._stamps()
        return self._seen == before != self._read

    def read(self) -> Settings | None:
        """What the files say now; None, with a line of the log for each reason, where that cannot be used."""
        self._is_asked = False
        self._read = self._seen = self._stamps()
        if not self._source.names_a_file:
            _logger.error("nothing was reloaded: the gateway was started without a file")
            return None
        try:
            settings = self._source.load()
        except (ConfigError, InvalidSetting) as error:
            for line in str(error).splitlines():
                _logger.error("nothing was reloaded: %s", line)
            return None
        for server in settings.left_out:
            _logger.error("server %r is left out: %s", server.title, server.reason, extra={"fields": {"backend": server.name}})
        return settings

    def _stamps(self) -> tuple[_Stamp, ...]:
        return tuple(_stamp(path) for path in self._paths)


def change_lines(answer: Mapping[str, Any]) -> tuple[list[str], list[str]]:
    """What a change of settings has changed, and what it has left as it was; a line each, for people."""
    done = [f"{backend} {kind}" for kind, backend in answer["changes"]] + [f"[{table}] changed" for table in answer["tables"]]
    done += [f"server {name} includes tools of it, and has none of them any more" for name in answer.get("orphans", ())]
    left = [f"{key} differs from what runs and was left: it changes when the gateway starts again" for key in answer["left"]]
    return done if done or left else ["nothing has changed"], left


def log_answer(answer: Mapping[str, Any]) -> str:
    """Write what became of a reload to the log, as the command `reload` prints it; one line for a service manager."""
    if lines := [str(answer["error"])] if "error" in answer else list(map(str, answer.get("refused", ()))):
        for line in lines:
            _logger.error("nothing was reloaded: %s", line)
        return f"the last reload was refused: {lines[0]}"
    done, left = change_lines(answer)
    for line in done:
        _logger.info("reloaded: %s", line)
    for line in left:
        _logger.warning("%s", line)
    return f"reloaded, {len(answer['changes'])} backend changes"


def _paths(source: SettingsSource) -> tuple[str, ...]:
    given = (os.path.abspath(os.path.expanduser(path)) for path in (source.config, *(source.mcp_json or ())) if path is not None)
    return tuple(file for path in given for file in _files(path))


def _files(path: str) -> list[str]:
    """What is looked at for a path: itself; for a folder the files that are read in it, also those that it has not yet."""
    if not os.path.isdir(path):
        return [path]
    from mcp_gateway.config.desktop_files import KNOWN_FILES  # start-up without such files is measured

    return [os.path.join(path, name) for name in KNOWN_FILES]


def _stamp(path: str) -> _Stamp:
    """What changes when a file is written or replaced; None where there is none, as in between."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns, status.st_size
