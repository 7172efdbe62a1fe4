"""What a gateway serves, used from the shell: `tools`, `resources`, `prompts`, `call`."""

from __future__ import annotations

import argparse
import difflib
import json
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final
from urllib.parse import quote, urlsplit

from mcp_gateway.config.shown_text import shown, shown_json, shown_lines

from .attaching import EXIT_NOTHING_THERE, EXIT_REFUSED, Refused, add_attach_options, say, settings_of
from .form_answers import FormAnswers
from .gateway_address import TOKEN_EPILOG, GatewayAddress, NothingToFollow, find_gateway, token_of_user
from .principal_options import add_principal_options, doubts, principal_of, say_who
from .stateless_client import Asked, CallFailed, StatelessClient
from .status_table import table_lines

_LONGEST_CELL: Final = 80
_LISTS: Final[Mapping[str, tuple[tuple[str, str], ...]]] = {
    "tools": (("tools/list", "tools"),),
    "resources": (("resources/list", "resources"), ("resources/templates/list", "resourceTemplates")),
    "prompts": (("prompts/list", "prompts"),),
}
"""{command: (method, member of its result)}"""


def add_use_commands(commands: Any) -> None:
    """commands: what `add_subparsers` returned."""
    for name in _LISTS:
        listing = commands.add_parser(name, help=f"the {name} that a running gateway serves")
        listing.add_argument("--json", action="store_true", help="for programs: a list as the protocol has it")
        _add_common(listing)
        add_principal_options(listing, "what of the list the policies of --config let it use, where you may use all")
        listing.set_defaults(run=_list, listed=name)
    calling = commands.add_parser(
        "call",
        help="call a tool of a running gateway",
        description="Call a tool and print what it answers. Values are read as the tool's schema says; KEY:=JSON is always JSON. "
        "Exit code 0, or 1 where the tool or the gateway says no, 2 where the arguments are wrong.",
    )
    calling.add_argument("name", metavar="NAME", help="a tool, as `tools` lists it")
    calling.add_argument("pairs", metavar="KEY=VALUE", nargs="*", help="an argument of the tool")
    calling.add_argument("--json", metavar="J", help="arguments as a JSON object; - reads it from standard input")
    calling.add_argument("--raw", action="store_true", help="print the whole result as JSON")
    _add_common(calling)
    calling.set_defaults(run=_call)


def _add_common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--server", metavar="S", help="at one server alone, its names without prefix")
    parser.add_argument("--url", metavar="URL", help="of a gateway elsewhere, such as https://mcp.example.com")
    parser.epilog = TOKEN_EPILOG
    add_attach_options(parser, with_config=True)


def _client(options: argparse.Namespace, answers: Asked | None = None, chosen: str = "") -> StatelessClient:
    """chosen: the tool that its lists are to have, and no other; "" for all.

    Raises: Refused, NothingToFollow
    """
    prefix = ""
    if options.url is None:
        settings = settings_of(options)
        gateway = find_gateway(settings.gateway.state_path, options.admin_port, settings.actor_system.admin_port)
    elif options.url.startswith(("http://", "https://")):
        found = urlsplit(options.url.rstrip("/").removesuffix("/mcp"))
        gateway, prefix = GatewayAddress(f"{found.scheme}://{found.netloc}", token=token_of_user()), found.path
    else:
        raise Refused(f"--url: {options.url!r} is no http or https address")
    path = "/mcp" if options.server is None else f"/mcp/servers/{quote(options.server, safe='')}"
    choice = f"?tools={quote(chosen, safe='')}" if chosen else ""
    return StatelessClient(gateway, f"{prefix}{path}{choice}", answers=answers)


def _using(run: Callable[[], int]) -> int:
    try:
        return run()
    except Refused as refusal:
        return say(str(refusal), EXIT_REFUSED)
    except (NothingToFollow, CallFailed) as failure:
        return say(str(failure), EXIT_NOTHING_THERE)


# ---- lists


def _list(options: argparse.Namespace) -> int:
    def run() -> int:
        permitted = _permitted_to(options) if say_who(options) else None
        client = _client(options)
        found: list[Mapping[str, Any]] = []
        for method, member in _LISTS[options.listed]:
            items = list(client.items(method, member))
            found += items if permitted is None else permitted(method, items)
        print(shown_json(found, indent=2) if options.json else "\n".join(list_lines(options.listed, found)), flush=True)
        _tell_missing(client)
        return 0

    return _using(run)


def _permitted_to(options: argparse.Namespace) -> Callable[[str, Sequence[Mapping[str, Any]]], list[Mapping[str, Any]]]:
    """What of a list by a method they may use whom the options name.

    Raises: Refused, where there is nothing to tell it by as well: whoever reads the whole list would believe it.
    """
    from .permitted_items import permitted_items

    settings = settings_of(options)
    if not settings.policies and options.config is None:
        raise Refused("--as asks the policies of a file, and none is named: --config F, which the gateway was started with")
    principal = principal_of(options, settings)
    for doubt in doubts(principal, settings):
        say(doubt, 0)
    return lambda method, items: permitted_items(settings, principal, method, options.server, items)


def _tell_missing(client: StatelessClient) -> None:
    """Beside the list, so that a program which reads it is not disturbed."""
    for backend, why in client.missing.items():
        say(f"backend {backend!r} gives no list now: {why}", 0)


def list_lines(listed: str, items: Sequence[Mapping[str, Any]]) -> list[str]:
    """A table of what was listed: names, what they take, what they are for."""
    if not items:
        return [f"no {listed}"]
    if listed == "resources":
        rows = [
            (_text(item.get("uri") or item.get("uriTemplate")), _text(item.get("mimeType")), _purpose(item)) for item in items
        ]
        return table_lines(("URI", "TYPE", "WHAT IT IS"), rows)
    takes = _schema_arguments if listed == "tools" else _prompt_arguments
    return table_lines(
        ("NAME", "TAKES", "WHAT IT IS"), [(_text(item.get("name")), takes(item), _purpose(item)) for item in items]
    )


def _schema_arguments(tool: Mapping[str, Any]) -> str:
    """The arguments of a tool: `path limit?`."""
    schema = tool.get("inputSchema")
    properties = schema.get("properties") if isinstance(schema, dict) else None
    required = schema.get("required") if isinstance(schema, dict) else None
    needed = required if isinstance(required, list) else []
    names = [name if name in needed else f"{name}?" for name in properties] if isinstance(properties, dict) else []
    return _short(" ".join(names))


def _prompt_arguments(prompt: Mapping[str, Any]) -> str:
    arguments = prompt.get("arguments")
    found = [each for each in arguments if isinstance(each, dict)] if isinstance(arguments, list) else []
    return _short(" ".join(f"{each.get('name')}{'' if each.get('required') else '?'}" for each in found))


def _purpose(item: Mapping[str, Any]) -> str:
    return _short(_text(item.get("description")) or _text(item.get("title")))


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _LONGEST_CELL else f"{line[: _LONGEST_CELL - 1]}…"


# ---- calls


def _call(options: argparse.Namespace) -> int:
    def run() -> int:
        answers = FormAnswers() if sys.stdin.isatty() and options.json != "-" else None
        client = _client(options, answers)
        given = _given_json(options.json)
        tools = _tools_for(options, client) if options.pairs else []
        _tell_missing(client)
        arguments = {**given, **read_pairs(options.name, options.pairs, tools)}
        progress = _show_progress if sys.stderr.isatty() else None
        result = client.request("tools/call", {"name": options.name, "arguments": arguments}, progress)
        print(shown_json(result, indent=2) if options.raw else shown_lines("\n".join(result_lines(result))), flush=True)
        return EXIT_NOTHING_THERE if result.get("isError") else 0

    return _using(run)


def _tools_for(options: argparse.Namespace, client: StatelessClient) -> list[dict[str, Any]]:
    """The list with the tool that is called: where a search stands in for one that is too long, a list of that tool alone."""
    from mcp_gateway.transports.protocol.curation.search_tools import SEARCH

    tools = list(client.items("tools/list", "tools"))
    names = {tool.get("name") for tool in tools}
    if options.name in names or SEARCH not in names:
        return tools
    return list(_client(options, chosen=options.name).items("tools/list", "tools")) or tools


def _given_json(text: str | None) -> dict[str, Any]:
    if text is None:
        return {}
    try:
        value = json.loads(sys.stdin.read() if text == "-" else text)
    except ValueError as error:
        raise Refused(f"--json: {error}") from None
    if not isinstance(value, dict):
        raise Refused("--json: the arguments of a tool are a JSON object")
    return value


def read_pairs(name: str, pairs: Iterable[str], tools: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Arguments of KEY=VALUE, each value as the schema of its property asks; JSON after `:=`.

    Raises: Refused
    """
    tool = next((tool for tool in tools if tool.get("name") == name), None)
    if tool is None and tools:
        near = difflib.get_close_matches(name, [str(tool.get("name")) for tool in tools], n=3, cutoff=0.5)
        meant = f"; did you mean {' or '.join(near)}?" if near else "; `mcp-gateway tools` lists them"
        raise Refused(f"there is no tool {name!r}{meant}")
    schema = (tool or {}).get("inputSchema")
    properties = schema.get("properties") if isinstance(schema, dict) else None
    arguments: dict[str, Any] = {}
    for pair in pairs:
        key, found, text = pair.partition("=")
        if not found or key in ("", ":"):
            raise Refused(f"{pair!r} is not of the form KEY=VALUE")
        if key.endswith(":"):
            arguments[key[:-1]] = _as_json(pair, text)
            continue
        kinds = _kinds(properties.get(key) if isinstance(properties, dict) else None)
        if not kinds or "string" in kinds:
            arguments[key] = text
        else:
            arguments[key] = _as_json(pair, text)
    return arguments


def _kinds(schema: object) -> list[str]:
    """The types that a property may have; [] where its schema does not say."""
    if not isinstance(schema, dict):
        return []
    kind = schema.get("type")
    if isinstance(kind, str):
        return [kind]
    if isinstance(kind, list):
        return [str(each) for each in kind]
    choices = schema.get("anyOf") or schema.get("oneOf") or ()
    return [kind for choice in choices for kind in _kinds(choice)] if isinstance(choices, list) else []


def _as_json(pair: str, text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        raise Refused(f"{pair!r}: the value must be JSON, such as 5, true or [1, 2]") from None


def result_lines(result: Mapping[str, Any]) -> list[str]:
    """What a tool has answered, for people: its texts, and a word for everything that is none."""
    content = result.get("content")
    parts = [part for part in content if isinstance(part, dict)] if isinstance(content, list) else []
    lines = [_part_text(part) for part in parts]
    if not lines and (structured := result.get("structuredContent")) is not None:
        lines = [json.dumps(structured, ensure_ascii=False, indent=2)]
    return lines


def _part_text(part: Mapping[str, Any]) -> str:
    kind = part.get("type")
    if kind == "text":
        return _text(part.get("text"))
    if kind == "resource" and isinstance(resource := part.get("resource"), dict):
        return _text(resource.get("text")) or f"[{_text(resource.get('uri'))} {_text(resource.get('mimeType'))}]"
    if kind == "resource_link":
        return f"[{_text(part.get('uri'))}]"
    return f"[{kind} {_text(part.get('mimeType'))}, {len(_text(part.get('data'))) * 3 // 4} bytes]"


def _show_progress(method: str, params: Mapping[str, Any]) -> None:
    if method != "notifications/progress":
        return
    done, total = params.get("progress"), params.get("total")
    share = f"{done / total:.0%}" if isinstance(done, (int, float)) and isinstance(total, (int, float)) and total else f"{done}"
    print(shown(f"{share} {_text(params.get('message'))}".rstrip()), file=sys.stderr, flush=True)
