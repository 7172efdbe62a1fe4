"""Settings of who clients are and what they may: `[auth]`, `[[policies]]`, `[tls]`. Rules as in `settings`."""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Mapping
from typing import Any, Final

import attrs
from attrs.validators import deep_iterable, instance_of

from .common_rules import LINE, PATH, SCOPE, WEB_URL, as_seconds, as_tuple
from .conditions import ConditionRule
from .setting_rules import Each, Flag, Number, OneOf, SettingProblem, Text, Whole, quote, quote_url

ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")
"""Asymmetric ones only: who can check a token must not be able to make one. Source: RFC 8725, section 3.2."""

LOG_OUTS_KEPT_S: Final = 86_400.0
"""How old a token may be of an issuer that logs people out: for so long it is known who was."""

MOST_LOG_OUTS: Final = 10_000

_ANY_LINE = r"[^\x00-\x1f\x7f\ud800-\udfff]"
_ISSUER = Text(
    r"https?://(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::[0-9]{1,5})?(?:/[^\s?#\x00-\x1f\x7f\ud800-\udfff]*)?",
    "the https URL of an authorization server, without query and fragment",  # RFC 8414, section 2
    longest=500,
)
_AUDIENCE = Text(rf"{_ANY_LINE}+", "an audience, such as the URL of this gateway", longest=2_000)
_CLAIM = Text(rf"{_ANY_LINE}+", "the name of a claim; a dot leads into an object", longest=200)
_NAMES = Each(Text(rf"{_ANY_LINE}+", "a name or a pattern such as team-*", longest=500), most=1_000)
_SCOPE_OR_NONE = Text(r"[\x21\x23-\x5b\x5d-\x7e]*", "a scope, or an empty string", longest=200)
_SCOPES = Each(SCOPE, most=1_000)
_KEY_HASH = Text(r"sha256:[0-9a-f]{64}", "sha256: and 64 hexadecimal digits", longest=71, show=lambda _: "something else")
_HEADER = Text(r"|[A-Za-z0-9!#$%&'*+.^_`|~-]+", "a header name, or an empty string", longest=200)
_LEEWAY = Number(0.0, 600.0)


def _names() -> Any:
    return attrs.field(default=(), converter=as_tuple, validator=_NAMES)


def _scopes() -> Any:
    return attrs.field(default=(), converter=as_tuple, validator=_SCOPES)


@attrs.frozen(kw_only=True)
class IssuerSettings:
    """`[[auth.issuers]]`: an authorization server whose access tokens are taken.

    issuer:            as tokens name it (`iss`); its metadata and keys are found from there.
    audience:          what `aud` must hold one of; () takes the gateway's own address, `public_url`, and that of each server.
    jwks_file:         its keys, where they are not to be fetched.
    introspection_url: where opaque tokens are asked about, with `client_id` and the content of `client_secret_file`.
    leeway:            seconds by which its clock may differ.
    allow_private:     whether it may have a private address, or speak plain HTTP: for one on the own network.
    logout_audience:   for whom its logout tokens are made out: the client that it knows the gateway as; "" takes none.
    *_claim:           where a token says who its subject is, in which groups, and with which scopes; a dot leads into an object.
    """

    issuer: str = attrs.field(validator=_ISSUER)
    audience: tuple[str, ...] = attrs.field(default=(), converter=as_tuple, validator=Each(_AUDIENCE, most=100))
    jwks_file: str = attrs.field(default="", validator=PATH)
    introspection_url: str = attrs.field(default="", validator=WEB_URL, repr=quote_url)
    client_id: str = attrs.field(default="", validator=LINE)
    client_secret_file: str = attrs.field(default="", validator=PATH)
    algorithms: tuple[str, ...] = attrs.field(
        default=("RS256", "ES256", "EdDSA"),
        converter=as_tuple,
        validator=Each(OneOf(*ALGORITHMS), fewest=1, most=len(ALGORITHMS)),
    )
    subject_claim: str = attrs.field(default="sub", validator=_CLAIM)
    groups_claim: str = attrs.field(default="groups", validator=_CLAIM)
    scope_claim: str = attrs.field(default="scope", validator=_CLAIM)
    leeway: float = attrs.field(default=30.0, converter=as_seconds, validator=_LEEWAY)
    allow_private: bool = attrs.field(default=False, validator=Flag())
    logout_audience: str = attrs.field(default="", validator=LINE)


@attrs.frozen(kw_only=True)
class ApiKeySettings:
    """`[[auth.api_keys]]`: a secret of a program that cannot log in.

    hash: "sha256:" and the digest of the key, in hexadecimal; the key itself is long and random, so that nobody can try.
    """

    name: str = attrs.field(validator=Text(r"[A-Za-z0-9][A-Za-z0-9._@-]*", "letters, digits, . _ @ and -", longest=200))
    hash: str = attrs.field(validator=_KEY_HASH, repr=False)
    groups: tuple[str, ...] = _names()
    scopes: tuple[str, ...] = _scopes()


@attrs.frozen(kw_only=True)
class AuthSettings:
    """`[auth]`: who clients are. Without this table everyone is anonymous.

    mode:                "required" serves nobody who has not said who it is; "optional" serves them as nobody in particular.
    scopes:              named in the metadata as what clients may ask for.
    operator_scope:      what opens `/metrics`, the details of `/health`, the dashboard and the gateway's own topics; "" opens
                         them to all who are authenticated.
    operators:           who has that scope of those whom a proxy or a certificate names, as these tell none; names as in
                         `denied_subjects`.
    user_header:         set by one of `trusted_proxies` to who the user is; "" believes no header.
    groups_header:       the same for the user's groups, with commas in between.
    client_certificates: whether the subject of a client certificate (`[tls] client_ca`) is a user.
    denied_subjects:     who is refused, whatever it brings.
    """

    mode: str = attrs.field(default="required", validator=OneOf("required", "optional"))
    scopes: tuple[str, ...] = _scopes()
    operator_scope: str = attrs.field(default="mcp-gateway:operate", validator=_SCOPE_OR_NONE)
    operators: tuple[str, ...] = _names()
    user_header: str = attrs.field(default="", validator=_HEADER)
    groups_header: str = attrs.field(default="", validator=_HEADER)
    client_certificates: bool = attrs.field(default=False, validator=Flag())
    denied_subjects: tuple[str, ...] = _names()
    issuers: tuple[IssuerSettings, ...] = attrs.field(
        default=(), validator=deep_iterable(instance_of(IssuerSettings), instance_of(tuple)), kw_only=True
    )
    api_keys: tuple[ApiKeySettings, ...] = attrs.field(
        default=(), validator=deep_iterable(instance_of(ApiKeySettings), instance_of(tuple)), kw_only=True
    )

    def makes_operator(self, scopes: Container[str]) -> bool:
        """Whether who is known, and has these scopes, is an operator."""
        return not self.operator_scope or self.operator_scope in scopes


@attrs.frozen(kw_only=True)
class LogOut:
    """An issuer has logged somebody out: what it issued until then counts no more.

    subject, session: who, and in which session (`sid`); "" where it does not say. Without both, everybody.
    issued_ms:        when, by the issuer's clock, since the epoch.
    token_id:         of the token that told it (`jti`), which tells it once.
    """

    issuer: str
    subject: str = ""
    session: str = ""
    issued_ms: int
    token_id: str = ""


def _log_outs(kept: Iterable[LogOut | Mapping[str, Any]]) -> tuple[LogOut, ...]:
    return tuple(each if isinstance(each, LogOut) else LogOut(**each) for each in kept)


@attrs.frozen(kw_only=True)
class Revocations:
    """Who has lost access while the gateway ran, by `mcp-gateway revoke` or an issuer's word; no table of the file.

    subjects:     as in `denied_subjects`.
    fingerprints: of credentials, as logs show them.
    """

    subjects: tuple[str, ...] = _names()
    fingerprints: tuple[str, ...] = attrs.field(
        default=(), converter=as_tuple, validator=Each(Text(r"[0-9a-f]{32}", "32 hexadecimal digits", longest=32), most=10_000)
    )
    log_outs: tuple[LogOut, ...] = attrs.field(
        default=(), converter=_log_outs, validator=deep_iterable(instance_of(LogOut), instance_of(tuple)), repr=False
    )


@attrs.frozen(kw_only=True)
class PolicySettings:
    """`[[policies]]`: who may do what. With one of them, what none allows is denied; one that denies wins.

    subjects, groups, clients: whom it is about: of each that is given, one must be the client's, by name or by a pattern in which
              "*" stands for any text; () is everybody. A subject may be written with who vouches for it: "ISSUER SUBJECT".
    scopes:   all of which the client must have.
    backends, methods: what it is about, in the same way; () is everything.
    tools, prompts, resources, topics: the same, by the names of the merged server; beside `backends`, and where it denies, by
              those of the servers as well. Where some are given it is about those, and about nothing else.
    when:     a condition in CEL, see `conditions.VARIABLES`; one that fails or is no truth value does not hold for "allow" and
              holds for "deny".
    """

    effect: str = attrs.field(validator=OneOf("allow", "deny"))
    subjects: tuple[str, ...] = _names()
    groups: tuple[str, ...] = _names()
    scopes: tuple[str, ...] = _scopes()
    clients: tuple[str, ...] = _names()
    backends: tuple[str, ...] = _names()
    methods: tuple[str, ...] = _names()
    tools: tuple[str, ...] = _names()
    prompts: tuple[str, ...] = _names()
    resources: tuple[str, ...] = _names()
    topics: tuple[str, ...] = _names()
    when: str = attrs.field(default="", validator=ConditionRule())


@attrs.frozen(kw_only=True)
class AuditSettings:
    """`[audit]`: how long what policies have decided is kept in `state_dir`.

    retention_days: 0 keeps nothing and writes nothing. max_bytes: of the trail; beyond, its oldest parts go before their time.
    """

    retention_days: float = attrs.field(
        default=90.0, converter=as_seconds, validator=Number(1.0, 36_500.0, unit="days", zero_means="no audit trail")
    )
    max_bytes: int = attrs.field(default=1_073_741_824, validator=Whole(67_108_864, 2**50))


@attrs.frozen(kw_only=True)
class TlsSettings:
    """`[tls]`: PEM files, read again when they change. Without this table the gateway speaks plain HTTP.

    client_ca:  of whom clients' certificates must be; "" asks for none. client_required: whether each client must have one.
    client_crl: which of these that authority has taken back; "" asks nobody. A list that has expired refuses all; what a
                certificate has opened ends once the list names it.
    hsts:       seconds for which browsers are told to come over TLS only; 0 tells nothing.
    """

    certificate: str = attrs.field(validator=PATH)
    key: str = attrs.field(validator=PATH)
    client_ca: str = attrs.field(default="", validator=PATH)
    client_required: bool = attrs.field(default=False, validator=Flag())
    client_crl: str = attrs.field(default="", validator=PATH)
    hsts: float = attrs.field(default=0.0, converter=as_seconds, validator=Number(0.0, 63_072_000.0))


def auth_problems(
    fields: Mapping[str, Any], gateway: Mapping[str, Any], tls: Mapping[str, Any] | None
) -> Iterator[SettingProblem]:
    """Check `[auth]` as a whole: somebody can be known, names and issuers are unique, an audience is known.

    gateway, tls: those tables; what was wrong itself is not in them. tls: None where there is none.
    """
    public_url = gateway.get("public_url")
    issuers, keys = fields.get("issuers", ()), fields.get("api_keys", ())
    others = fields.get("user_header") or fields.get("client_certificates")
    if not issuers and not keys and not others and fields.get("mode", "required") == "required":
        allowed = "at least one of [[auth.issuers]], [[auth.api_keys]], user_header, client_certificates"
        yield SettingProblem(key="", found="nobody whom the gateway could know", allowed=allowed)
    if fields.get("user_header") and gateway.get("trusted_proxies") == ():
        allowed = "beside gateway.trusted_proxies, of whom alone it is believed, or nothing"
        yield SettingProblem(key="user_header", found=quote(fields["user_header"]), allowed=allowed)
    if fields.get("client_certificates") and (tls is None or tls.get("client_ca") == ""):
        allowed = "true beside tls.client_ca, whose certificates those are, or false"
        yield SettingProblem(key="client_certificates", found="true", allowed=allowed)
    for where, tables, name in (("issuers", issuers, "issuer"), ("api_keys", keys, "name")):
        seen: dict[str, int] = {}
        for index, table in enumerate(tables):
            value = table.get(name)
            if value is not None and seen.setdefault(value, index) != index:
                allowed = f"each once ({where}[{seen[value]}] has it)"
                yield SettingProblem(key=f"{where}[{index}].{name}", found=f"{quote(value)} again", allowed=allowed)
    for index, table in enumerate(issuers):
        if table.get("audience") == () and public_url == "":
            allowed = "what tokens for this gateway are made out to, or gateway.public_url, which is taken otherwise"
            yield SettingProblem(key=f"issuers[{index}].audience", found="nothing", allowed=allowed)
        if not table.get("allow_private", True) and str(table.get("issuer", "https:")).startswith("http:"):
            allowed = "an https URL, or allow_private = true beside it"
            yield SettingProblem(key=f"issuers[{index}].issuer", found=quote(table["issuer"]), allowed=allowed)
