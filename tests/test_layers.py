"""The rules of the house as data, held against the real imports: who may import whom, what is pure, where a test belongs.

An import that breaks a rule is named by file, line and rule. A new package needs its row here, a paragraph in its `__init__.py`
and a line in `setup.cfg`. Source: ours; the one rule worth all the others is that edge, events, pool, routing, health and
viability know each other by message only.
"""

from __future__ import annotations

import ast
import configparser
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Final

import attrs
import pytest

ROOT = Path(__file__).parents[1]
ROLES = ("edge", "events", "pool", "routing", "health", "viability", "identity")

_SHARED = ("transports.ports", "transports.telemetry", "transports.protocol", "config")
_ACTOR = ("actors.messages", "actors.runtime", *_SHARED)
_PROTOCOL = "transports.protocol."
_CLIENT = _SHARED
_SERVER = _SHARED

MAY_IMPORT: Final[dict[str, tuple[str, ...]]] = {
    "actors": (),
    "actors.messages": ("transports.ports", "transports.protocol", "config"),
    "actors.runtime": ("actors.messages",),
    "actors.storage": ("actors.messages", "actors.runtime.system_key", "transports.ports", "transports.protocol"),
    "actors.conversations": ("actors.messages", "transports.ports", "transports.protocol"),
    "actors.supervision": _ACTOR,
    "actors.routing": _ACTOR,
    "actors.health": _ACTOR,
    "actors.viability": _ACTOR,
    "actors.identity": (*_ACTOR, "transports.identity", "transports.outbound"),
    "actors.events": (*_ACTOR, "actors.storage"),
    "actors.cluster": (*_ACTOR, "actors.events", "actors.storage"),
    "actors.forwarding": ("actors.messages", "actors.routing.hash_ring", "transports.ports", "transports.protocol"),
    "actors.pool": (*_ACTOR, "actors.supervision", "actors.forwarding"),
    "actors.edge": (
        *_ACTOR,
        "actors.storage",
        "actors.conversations",
        "actors.forwarding",
        "transports.downstream.exchanges.request_watch",
        "transports.identity",
        "transports.policy",
    ),
    "actors.node": (
        "actors.messages",
        "actors.runtime",
        "actors.supervision",
        "actors.events",
        "actors.cluster",
        "transports.ports.shared_budget",
        "transports.telemetry",
        "transports.protocol",
        "transports.upstream.pipes.process_guard",
        "config",
    ),
    "actors.cell": (
        *(f"actors.{role}" for role in ROLES),
        *("actors.messages", "actors.runtime", "actors.supervision", "actors.storage", "actors.conversations"),
        *("actors.forwarding", "transports", "config"),
    ),
    "transports": (),
    "transports.protocol": (),
    "transports.protocol.framing": (),
    "transports.protocol.mcp": (f"{_PROTOCOL}framing",),
    **{
        f"{_PROTOCOL}{package}": (f"{_PROTOCOL}mcp", f"{_PROTOCOL}framing", "config.version")
        for package in ("merging", "sealed", "eras", "topics", "grpc")
    },
    f"{_PROTOCOL}curation": (f"{_PROTOCOL}mcp", f"{_PROTOCOL}framing", f"{_PROTOCOL}merging"),
    "transports.ports": ("transports.protocol", "config"),
    "transports.identity": _SHARED,
    "transports.outbound": _SHARED,
    "transports.policy": ("transports.ports", "transports.protocol", "config"),
    "transports.telemetry": ("config",),
    "transports.downstream": (),
    "transports.downstream.server": _CLIENT,
    "transports.downstream.exchanges": (*_CLIENT, "transports.downstream.server"),
    **{
        f"transports.downstream.{package}": (*_CLIENT, "transports.downstream.server", "transports.downstream.exchanges")
        for package in ("http", "websocket", "operators")
    },
    "transports.downstream.grpc": (*_CLIENT, "transports.downstream.server", "transports.downstream.http"),
    "transports.downstream.consent": (*_CLIENT, "transports.downstream.server"),
    "transports.downstream.phoenix": (
        *_CLIENT,
        *(f"transports.downstream.{package}" for package in ("server", "exchanges", "websocket")),
    ),
    "transports.upstream": (),
    "transports.upstream.http": _SERVER,
    "transports.upstream.pipes": (*_SERVER, "transports.upstream.http"),
    "transports.upstream.cache": _SERVER,
    "transports.upstream.credentials": (*_SERVER, "transports.outbound"),
    "transports.upstream.bridge": (*_SERVER, "transports.upstream.cache"),
    "transports.upstream.builtin": _SERVER,
    "transports.upstream.adapted": _SERVER,
    "transports.upstream.grpc": (*_SERVER, "transports.upstream.adapted", "transports.upstream.http"),
    "transports.upstream.openapi": (
        *_SERVER,
        *("transports.outbound", "transports.upstream.adapted", "transports.upstream.http"),
    ),
    "transports.upstream.guard": (*_SERVER, "transports.outbound"),
    "config": (),
    "scripts": ("actors", "transports", "config", "scripts.serving", "scripts.commands"),
    "scripts.serving": ("actors", "transports", "config"),
    "scripts.commands": ("actors", "transports", "config", "scripts.serving"),
    "scripts.library": ("actors", "transports", "config", "scripts.serving"),
    "scripts.benchmark": (),
    "scripts.chaos_harness": (),
}
"""{package: prefixes of what it may import besides itself}, without the import root."""

IMPORT_ROOT: Final = "scripts.import_root"
"""The folder whose `__init__.py` is that of `mcp_gateway` itself: three names, which are all that the library promises."""

ONLY_IN: Final[dict[str, tuple[str, ...]]] = {
    "tornado": ("transports.downstream.server", "transports.downstream.websocket", "scripts.benchmark"),
    "aiohttp": (
        *("transports.outbound", "transports.upstream.http", "transports.upstream.pipes"),
        *("actors.health.alert_sinks", "scripts.benchmark", "scripts.chaos_harness"),
    ),
    "httptools": ("transports.upstream.http", "transports.downstream.server.http1_parser"),
    "jsonschema_rs": ("transports.protocol.curation.schema_checks",),
    "jwt": ("transports.identity",),
    "aiohappyeyeballs": ("transports.upstream.http",),
    "yarl": ("transports.upstream.http",),
    "thespian": ("actors", "scripts"),
    "sqlite3": ("actors.storage",),
    "grpc": (
        *(
            f"transports.upstream.grpc.{module}"
            for module in ("grpc_channel", "grpc_source", "mcp_conversation", "reflected_methods")
        ),
        "transports.downstream.grpc.grpc_listener",
    ),
    "cel": ("config.conditions",),
    "nats": ("actors.cluster.nats_engine",),
}
"""{library: the only packages or modules that may import it}."""

NOT_PURE: Final = frozenset(
    {"tornado", "thespian", "aiohttp", "nats", "asyncio", "sqlite3", "socket", "threading", "logging", "time", "random"}
)
"""What a pure module does without: the network, the loop, the disk, the log, the clock, dice. A seal may draw a nonce."""

TESTED_ELSEWHERE: Final[dict[str, str]] = {
    **{
        f"actors.messages.{name}": "values without behaviour; every actor's test sends them"
        for name in (
            "between_cells",
            "calls",
            "cluster",
            "event_log",
            "events",
            "exchanges",
            "health",
            "identity",
            "lifecycle",
            "node",
            "node_link",
            "status",
            "supervision",
            "topology",
            "transports",
            "weight",
        )
    },
    "actors.cell.cell_wires": "cell/test_cell.py: of a running cell",
    "actors.cell.dashboard_state": "end_to_end/test_dashboard.py: of a whole gateway",
    "actors.cell.operator_pages": "operators/test_actions_endpoint.py, operators/test_login_page.py: of a running cell",
    "actors.cluster.memory_engine": "cluster/test_engine.py: the contract of all engines",
    "actors.cluster.nats_engine": "cluster/test_engine.py: the contract of all engines",
    "actors.conversations.desk": "a Protocol and a value",
    "actors.conversations.session_repair": "conversations/test_relay.py: a relay repairs its session",
    "actors.edge.loop_port": "edge/test_edge.py: the two are one pair",
    "actors.events.event_outbox": "events/test_event_order.py: what the outbox sends, the order takes",
    "actors.forwarding.remote_conversation": "forwarding/test_forwarding.py: both ends at once",
    "actors.identity.issuer_away": "an exception; identity/test_issuer_keys.py",
    "actors.health.resource_meter": "health/test_resource_rules.py",
    "actors.node.cell_factory": "node/test_cell_process.py",
    "actors.node.commanded_node": "node/test_node_supervisor.py: of a whole node",
    "actors.node.node_status": "node/test_node_supervisor.py",
    "actors.node.process_tree": "faults/test_processes.py: of real processes",
    "actors.viability.viability_report": "viability/test_viability_monitor.py",
    "config.backend_settings": "config/test_settings.py: with the defaults of all others",
    "config.common_rules": "config/test_loader.py: by the errors that people read",
    "config.desktop_values": "config/test_desktop_entry.py: by what entries give",
    "transports.ports.guard_port": "upstream/guard/test_guardrail.py, bridge/test_tool_rules.py: a contract and its values",
    "transports.upstream.bridge.task_work": "bridge/test_task_host.py and bridge/test_legacy_tasks.py: behind their tasks",
    "config.setting_rules": "config/test_loader.py: by the errors that people read",
    "config.version": "one constant",
    "scripts.benchmark.bare_proxy": "benchmark/test_bench_candidates.py starts it",
    "scripts.benchmark.bench_clients": "benchmark/test_bench_fan_out.py runs it",
    "scripts.benchmark.bench_load": "benchmark/test_bench_candidates.py runs it",
    "scripts.benchmark.bench_run": "benchmark/test_bench_report.py: of what it prints",
    "scripts.benchmark.bench_sockets": "benchmark/test_bench_callers.py: what it opens and sends",
    "scripts.benchmark.fast_backend": "benchmark/test_bench_candidates.py starts it",
    **{
        f"scripts.chaos_harness.{name}": "faults/test_chaos.py: of a whole run"
        for name in (
            "abandoning",
            "chaos_run",
            "clients",
            "cluster_acts",
            "cluster_under_test",
            "fault_acts",
            "followers",
            "gateway_under_test",
            "http_clients",
            "namespaces",
            "nats_servers",
            "recorder",
            "rude_clients",
            "servers",
            "socket_clients",
        )
    },
    "scripts.commands.admin_client": "test_command_line.py: every command attaches",
    "scripts.commands.attaching": "test_command_line.py: every command attaches",
    "scripts.commands.backend_commands": "end_to_end/test_backend_commands.py",
    "scripts.commands.revoke_command": "end_to_end/test_revocation.py",
    "scripts.commands.doctor_command": "commands/test_doctor_checks.py runs it",
    "scripts.commands.import_command": "end_to_end/test_desktop_files.py: what it writes is served",
    "scripts.commands.restart_command": "actors/node/test_node_supervisor.py: of a node of two cells",
    "scripts.commands.upgrade_command": "faults/test_code_upgrade.py",
    "scripts.serving.forking_process": "faults/test_code_upgrade.py",
    "scripts.serving.embedded": "end_to_end runs every test of a gateway on this form too",
    "scripts.serving.embedded_node": "library/test_gateway.py, and end_to_end on the embedded form",
    "scripts.serving.time_limit": "test_command_line.py: a port that never answers",
    "transports.downstream.exchanges.batch": "end_to_end/test_batches.py",
    "transports.downstream.exchanges.request_metrics": "end_to_end/test_metrics.py",
    "transports.downstream.server.tornado_answers": "end_to_end/test_http_parsers.py, and library/test_mounting.py",
    "transports.downstream.server.mounted_server": "library/test_mounting.py: in an application of Tornado",
    "transports.downstream.operators.operations": "end_to_end/test_metrics.py",
    "transports.downstream.phoenix.phoenix_channel": "phoenix/test_phoenix_socket.py: a channel lives in a socket",
    "transports.downstream.phoenix.topic_pushes": "phoenix/test_phoenix_socket.py: a channel lives in a socket",
    "transports.upstream.credentials.backend_access": "end_to_end/test_user_credentials.py: what a cell is made of",
    "transports.ports.authenticator": "a Protocol and a value",
    "transports.ports.consents": "a Protocol and values",
    "transports.ports.credential_vault": "a Protocol and values",
    "transports.ports.edge_port": "Protocols and values; edge/test_edge.py implements, the handlers' tests use them",
    "transports.ports.strategies": "actors/pool/test_transport_registry.py",
    "transports.protocol.mcp.change_notifications": "a table",
    "transports.protocol.mcp.error_codes": "eras/test_translation.py",
    "transports.protocol.mcp.handshake": "mcp/test_revisions.py",
    "transports.telemetry.exemplars": "end_to_end/test_metrics.py",
    "transports.telemetry.metrics": "end_to_end/test_metrics.py",
    "transports.telemetry.otel_tracing": "end_to_end/test_traces.py",
    "transports.telemetry.tracing": "end_to_end/test_traces.py",
    "transports.upstream.bridge.bridge_site": "a value",
    "transports.upstream.bridge.legacy_to_legacy": "bridge/test_era_bridge.py",
    "transports.upstream.bridge.parameter_headers": "bridge/test_legacy_to_modern.py",
    "transports.upstream.bridge.parkable_call": "bridge/test_calls_that_ask.py",
    "transports.upstream.openapi.api_schemas": "openapi/test_api_description.py: by what tools have",
    "transports.upstream.pipes.open_pipe": "pipes/test_pipe_conversation.py",
}
"""{module without a test at its mirrored path: where it is tested, or why it needs none}."""


@attrs.frozen
class Import:
    """One import of a product file. target: dotted, the import root left out where it is the product's own."""

    module: str
    line: int
    target: str
    is_ours: bool

    def __str__(self) -> str:
        return f"{self.module.replace('.', '/')}.py:{self.line} imports {self.target}"


def _modules() -> dict[str, ast.Module]:
    """{dotted name without the import root: tree} of every product file but the `__init__.py`."""
    files = [path for top in ("actors", "transports", "config", "scripts") for path in (ROOT / top).rglob("*.py")]
    return {
        ".".join(path.relative_to(ROOT).with_suffix("").parts): ast.parse(path.read_text())
        for path in files
        if path.name != "__init__.py"
    }


MODULES = _modules()


def _imports(module: str, tree: ast.Module, modules: Iterable[str] = ()) -> Iterator[Import]:
    known = MODULES.keys() | set(modules)
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            targets = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = ["mcp_gateway", *module.split(".")][: -node.level] if node.level else []
            package = ".".join([*base, *([node.module] if node.module else [])])
            inner = [f"{package}.{alias.name}" for alias in node.names]
            targets = [each if each.removeprefix("mcp_gateway.") in known else package for each in inner]
        else:
            continue
        for target in dict.fromkeys(targets):
            is_ours = target.startswith("mcp_gateway.")
            yield Import(module, node.lineno, target.removeprefix("mcp_gateway."), is_ours)


IMPORTS = [each for module, tree in MODULES.items() for each in _imports(module, tree)]


def _package(module: str) -> str:
    return module.rpartition(".")[0]


def _is_below(name: str, prefixes: Iterable[str]) -> bool:
    return any(name == prefix or name.startswith(f"{prefix}.") for prefix in prefixes)


def _forbidden(imports: Iterable[Import]) -> list[str]:
    problems = []
    for each in imports:
        package = _package(each.module)
        allowed = MAY_IMPORT.get(package, ())
        is_allowed = _package(each.target) == package or _is_below(each.target, allowed)
        if each.is_ours and not is_allowed:
            problems.append(f"{each}; {package} may import {', '.join(allowed) or 'nothing'} besides itself")
    return problems


def _strangers(imports: Iterable[Import]) -> list[str]:
    """Imports of libraries that only some packages may know."""
    return [
        f"{each}; {library} is for {', '.join(places)} only"
        for each in imports
        for library, places in ONLY_IN.items()
        if not each.is_ours and _is_below(each.target, (library,)) and not _is_below(each.module, places)
    ]


def _is_pure(module: str, tree: ast.Module) -> bool:
    return module.startswith(_PROTOCOL) or bool(re.search(r"\bPure\b", ast.get_docstring(tree) or ""))


def _impurities(modules: Mapping[str, ast.Module], imports: Iterable[Import]) -> list[str]:
    pure = {module for module, tree in modules.items() if _is_pure(module, tree)}
    return [
        f"{each}; a pure module knows no socket, loop, disk, log, clock or dice"
        for each in imports
        if each.module in pure and each.target.partition(".")[0] in NOT_PURE and not each.is_ours
    ]


def _circle(edges: Iterable[tuple[str, str]]) -> str:
    """A circle in a graph in words, or ""."""
    graph = defaultdict(set)
    for source, target in edges:
        if source != target:
            graph[source].add(target)
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return " <- ".join(error.args[1])
    return ""


def _message_problems(trees: Mapping[str, ast.Module]) -> list[str]:
    """What is wrong with the classes of `actors/messages`: dispatch is by class name, and messages are shared objects."""
    home: dict[str, str] = {}
    problems = []
    for module, tree in trees.items():
        for node in tree.body:
            if not isinstance(node, ast.ClassDef):
                continue
            if node.name in home:
                problems.append(f"{module}.{node.name}: a message of this name is in {home[node.name]} already")
            home[node.name] = module
            decorators = " ".join(ast.unparse(each) for each in node.decorator_list)
            bases = {ast.unparse(base) for base in node.bases}
            is_frozen = "attrs.frozen" in decorators or (
                "LeanMessage" in bases and "frozen=True" in map(ast.unparse, node.keywords)
            )
            if not is_frozen and not bases & {"Protocol", "Enum"}:
                problems.append(f"{module}.{node.name}: a message is attrs.frozen, or a LeanMessage that is frozen")
    return problems


def _packages() -> set[str]:
    return {_package(module) for module in MODULES} | {
        ".".join(path.parent.relative_to(ROOT).parts)
        for top in ("actors", "transports", "config", "scripts")
        for path in (ROOT / top).rglob("__init__.py")
    } - {IMPORT_ROOT}


def test_who_imports_whom() -> None:
    assert not (found := _forbidden(IMPORTS)), "\n".join(found)


def test_every_package_has_its_row() -> None:
    assert _packages() == MAY_IMPORT.keys()


@pytest.mark.parametrize("role", ROLES)
def test_the_roles_know_each_other_by_message_only(role: str) -> None:
    """Whatever the table says; only `cell` knows them all."""
    others = [f"actors.{other}" for other in ROLES if other != role]
    found = [str(each) for each in IMPORTS if _is_below(each.module, [f"actors.{role}"]) and _is_below(each.target, others)]
    assert not found, "\n".join(found)


def test_no_circle_of_files() -> None:
    assert not _circle((each.module, each.target) for each in IMPORTS if each.target in MODULES)


def test_no_circle_of_packages() -> None:
    assert not _circle((_package(each.module), _package(each.target)) for each in IMPORTS if each.target in MODULES)


def test_pure_modules_are_pure() -> None:
    assert not (found := _impurities(MODULES, IMPORTS)), "\n".join(found)


def test_libraries_stay_where_they_belong() -> None:
    assert not (found := _strangers(IMPORTS)), "\n".join(found)


def test_messages_are_frozen_and_their_names_unique() -> None:
    messages = {module: tree for module, tree in MODULES.items() if _package(module) == "actors.messages"}
    assert len(messages) > 10
    assert not (found := _message_problems(messages)), "\n".join(found)


def test_every_package_is_in_the_wheel_and_says_in_a_paragraph_what_it_is() -> None:
    """A folder left out of setup.cfg is missing in the wheel only; an editable install does not show it."""
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    assert {"mcp_gateway", *(f"mcp_gateway.{package}" for package in _packages())} == set(setup["options"]["packages"].split())
    for package in _packages():
        tree = ast.parse((ROOT / package.replace(".", "/") / "__init__.py").read_text())
        assert len(tree.body) == 1, f"{package}: __init__.py is a docstring and nothing else"
        assert "\n\n" not in (ast.get_docstring(tree) or "\n\n"), f"{package}: one paragraph"


def test_every_module_has_its_test_at_the_mirrored_path() -> None:
    untested = {
        module
        for module in MODULES
        if not (ROOT / "tests" / _package(module).replace(".", "/") / f"test_{module.rpartition('.')[2]}.py").exists()
    }
    assert untested == TESTED_ELSEWHERE.keys()


def test_what_a_reason_names_exists() -> None:
    names = [name for reason in TESTED_ELSEWHERE.values() for name in re.findall(r"[\w/]+\.py", reason)]
    files = [str(path.relative_to(ROOT)) for path in (ROOT / "tests").rglob("test_*.py")]
    assert not [name for name in names if not any(file.endswith(f"/{name}") for file in files)]


BROKEN_RULES = [
    ("actors.routing.router", "from mcp_gateway.actors.pool.lease_ledger import LeaseLedger", "actors.routing may import"),
    ("actors.routing.router", "from ..pool import lease_ledger", "actors.routing may import"),
    (
        "transports.upstream.http.x",
        "import mcp_gateway.transports.downstream.server.server",
        "transports.upstream.http may import",
    ),
    ("actors.new.thing", "from mcp_gateway.config.settings import Settings", "actors.new may import nothing"),
    ("transports.ports.x", "from thespian.actors import ActorAddress", "thespian is for"),
    ("transports.upstream.bridge.x", "import aiohttp.client", "aiohttp is for"),
    ("transports.protocol.mcp.x", "def f():\n    import time", "pure module"),
    ("actors.pool.x", '"""Decides. Pure."""\nimport asyncio', "pure module"),
]


@pytest.mark.parametrize(("module", "source", "says"), BROKEN_RULES)
def test_a_broken_rule_is_named_with_file_and_line(module: str, source: str, says: str) -> None:
    tree = ast.parse(source)
    imports = list(_imports(module, tree))
    line = len(source.splitlines())
    found = _forbidden(imports) + _strangers(imports) + _impurities({module: tree}, imports)
    assert len(found) == 1
    assert says in found[0]
    assert found[0].startswith(f"{module.replace('.', '/')}.py:{line} imports ")


def test_a_circle_is_shown() -> None:
    assert _circle([("a", "b"), ("b", "c"), ("c", "a")]).count(" <- ") == 3
    assert _circle([("a", "b"), ("a", "c"), ("b", "c"), ("c", "c")]) == ""


def test_two_messages_of_one_name_and_one_that_can_change_are_found() -> None:
    frozen = ast.parse("@attrs.frozen(kw_only=True)\nclass Ping: ...")
    assert _message_problems({"one": frozen}) == []
    assert _message_problems({"one": frozen, "two": frozen}) == ["two.Ping: a message of this name is in one already"]
    assert _message_problems({"one": ast.parse("class Ping(LeanMessage, frozen=True): ...")}) == []
    for changing in ("@attrs.define\nclass Ping: ...", "class Ping(LeanMessage): ...", "class Ping(Struct, frozen=True): ..."):
        told = _message_problems({"one": ast.parse(changing)})
        assert told == ["one.Ping: a message is attrs.frozen, or a LeanMessage that is frozen"]
