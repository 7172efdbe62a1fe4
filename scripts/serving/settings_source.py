"""Where the settings of a run come from: files, and options of the command line that stand over them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import attrs

from mcp_gateway.config.loader import load_mcp_json, load_settings
from mcp_gateway.config.settings import IN_PROCESS_BASE, Settings


@attrs.frozen(kw_only=True)
class SettingsSource:
    """What `serve` was told; kept with the run, so that `reload` can read the same again from any directory.

    config, mcp_json: paths, None where that option was not given; the others are values of options, None likewise.
    """

    config: str | None = None
    mcp_json: str | None = None
    host: str | None = None
    port: int | None = None
    state_dir: str | None = None
    admin_port: int | None = None
    is_embedded: bool = False

    @classmethod
    def kept(cls, fields: Mapping[str, Any]) -> SettingsSource:
        """The source that `to_keep` has described."""
        return cls(**fields)

    def to_keep(self) -> dict[str, Any]:
        """JSON-able, its paths absolute."""
        paths = {name: path and os.path.abspath(path) for name, path in (("config", self.config), ("mcp_json", self.mcp_json))}
        return attrs.asdict(self) | paths

    @property
    def names_a_file(self) -> bool:
        return self.config is not None or self.mcp_json is not None

    def load(self) -> Settings:
        """Read them; without a file those of the demo.

        Raises: ConfigError, InvalidSetting
        """
        settings = load_settings(self.config) if self.config is not None else Settings.demo()
        if self.mcp_json is not None:
            more = load_mcp_json(self.mcp_json, settings.gateway)
            settings = attrs.evolve(settings, backends=(*(settings.backends if self.config is not None else ()), *more))
        actor_system = _given(admin_port=self.admin_port, base=IN_PROCESS_BASE if self.is_embedded else None)
        return attrs.evolve(
            settings,
            gateway=attrs.evolve(settings.gateway, **_given(host=self.host, port=self.port, state_dir=self.state_dir)),
            actor_system=attrs.evolve(settings.actor_system, **actor_system),
        )


def _given(**options: Any) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}
