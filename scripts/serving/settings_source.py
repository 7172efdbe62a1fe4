"""Where the settings of a run come from: a file, variables that stand over it, and options that stand over both."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import attrs

from mcp_gateway.config.environment import names_backends
from mcp_gateway.config.loader import load_settings, raise_list_problems, settings_of_variables
from mcp_gateway.config.settings import IN_PROCESS_BASE, Settings


@attrs.frozen(kw_only=True)
class SettingsSource:
    """What `serve` was told; kept with the run, so that `reload` can read the same again from any directory.

    config, mcp_json: paths, None where that option was not given; the others are values of options, None likewise.
    variables:        settings of the environment, see `config.environment`; a value may be a secret.
    """

    config: str | None = None
    mcp_json: tuple[str, ...] | None = attrs.field(default=None, converter=attrs.converters.optional(tuple))
    host: str | None = None
    port: int | None = None
    state_dir: str | None = None
    admin_port: int | None = None
    is_embedded: bool = False
    variables: dict[str, str] = attrs.field(factory=dict, repr=False, hash=False)

    @classmethod
    def kept(cls, fields: Mapping[str, Any]) -> SettingsSource:
        """The source that `to_keep` has described."""
        return cls(**fields)

    def to_keep(self) -> dict[str, Any]:
        """JSON-able, its paths absolute."""
        config = self.config and os.path.abspath(self.config)
        mcp_json = self.mcp_json and [os.path.abspath(os.path.expanduser(path)) for path in self.mcp_json]
        return attrs.asdict(self) | {"config": config, "mcp_json": mcp_json}

    @property
    def names_a_file(self) -> bool:
        return self.config is not None or self.mcp_json is not None

    def load(self) -> Settings:
        """Read them; where neither file nor variable names a backend, the demo server is served.

        Raises: ConfigError, InvalidSetting
        """
        if self.config is not None:
            settings = load_settings(self.config, self.variables)
        else:
            settings = settings_of_variables(self.variables) if self.variables else Settings.demo()
        if self.mcp_json is not None:
            settings = self._with_desktop_files(settings, self.mcp_json)
        actor_system = _given(admin_port=self.admin_port, base=IN_PROCESS_BASE if self.is_embedded else None)
        return attrs.evolve(
            settings,
            gateway=attrs.evolve(settings.gateway, **_given(host=self.host, port=self.port, state_dir=self.state_dir)),
            actor_system=attrs.evolve(settings.actor_system, **actor_system),
        )

    def _with_desktop_files(self, settings: Settings, paths: tuple[str, ...]) -> Settings:
        from mcp_gateway.config.desktop_loader import load_desktop_files  # start-up without such files is measured

        own = settings.backends if self.config is not None or names_backends(self.variables) else ()
        servers = load_desktop_files(paths, settings.gateway, [backend.name for backend in own])
        backends = (*own, *servers.backends)
        raise_list_problems(", ".join(path for path in (self.config, *paths) if path), backends, settings.routes)
        return attrs.evolve(settings, backends=backends, left_out=servers.left_out, warnings=servers.warnings)


def _given(**options: Any) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}
