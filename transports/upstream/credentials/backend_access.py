"""What each backend of a cell is shown, whichever of its replicas asks."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable

from mcp_gateway.config.backend_settings import BackendSettings
from mcp_gateway.transports.ports.credential_vault import CredentialVault, VaultFailed
from mcp_gateway.transports.ports.principal import Principal
from mcp_gateway.transports.ports.subject_tokens import SubjectTokens
from mcp_gateway.transports.protocol.sealed.sealing import Seal

from .authorization_servers import AuthorizationServers
from .token_sources import ExchangedTokens, GatewayTokens, TokenSource
from .user_tokens import ConsentSite, UserTokens

_logger = logging.getLogger(__name__)


class BackendAccess:
    """make_vault, base_url, tells_users_apart: as in `ConsentSite`. consents: for the pages at which users consent."""

    def __init__(
        self,
        make_vault: Callable[[], CredentialVault],
        seal: Seal,
        subjects: SubjectTokens,
        base_url: str,
        *,
        tells_users_apart: bool,
    ) -> None:
        self._subjects = subjects
        self.consents = ConsentSite(make_vault, seal, base_url, tells_users_apart=tells_users_apart)
        self._sources: dict[str, tuple[BackendSettings, TokenSource]] = {}

    def source_of(self, backend: BackendSettings) -> TokenSource:
        """The same one for as long as the backend's settings are the same."""
        known = self._sources.get(backend.name)
        if known is not None and known[0] == backend:
            return known[1]
        source = self._made(backend)
        self._sources[backend.name] = (backend, source)
        return source

    def has_consent(self, backend: BackendSettings) -> Callable[[str], bool]:
        """Of a backend whose users consent."""
        source = self.source_of(backend)
        assert isinstance(source, UserTokens)
        return source.has_consent

    def keep(self, backends: Iterable[BackendSettings]) -> None:
        """These run from now on: what others were shown is forgotten, up to what the vault has."""
        names = {backend.name for backend in backends if backend.gets_tokens}
        for gone in self._sources.keys() - names:
            del self._sources[gone]
            self.consents.backends.pop(gone, None)

    def forget_users(self, is_denied: Callable[[Principal], bool]) -> None:
        """What these users have consented to is no more: where they are let in again, they are asked anew."""
        vault = self.consents.vault
        try:
            for key in vault.principals():
                issuer, _, subject = key.partition(" ")
                if is_denied(Principal(issuer=issuer, subject=subject)):
                    vault.forget(key)
        except VaultFailed as error:  # they are refused all the same
            _logger.error("credentials of users who are denied could not be deleted: %s", error)

    def _made(self, backend: BackendSettings) -> TokenSource:
        servers = AuthorizationServers(backend)
        if backend.auth == "user":
            tokens = self.consents.backends[backend.name] = UserTokens(backend, servers, self.consents)
            return tokens
        self.consents.backends.pop(backend.name, None)
        if backend.auth == "token_exchange":
            self._subjects.is_wanted = True
            return ExchangedTokens(backend, servers, self._subjects)
        return GatewayTokens(backend, servers)
