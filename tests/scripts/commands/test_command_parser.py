"""Options stand where people write them, and what cannot be used is told with the usage of its command."""

from __future__ import annotations

import pytest

from mcp_gateway.scripts.commands.command_parser import CommandParser


def parser() -> CommandParser:
    parser = CommandParser(prog="gateway")
    commands = parser.add_subparsers(required=True)
    call = commands.add_parser("call")
    call.add_argument("name")
    call.add_argument("pairs", nargs="*")
    call.add_argument("--server")
    files = commands.add_parser("import")
    files.add_argument("files", nargs="+")
    files.add_argument("--output")
    commands.add_parser("drain").add_argument("name")
    return parser


@pytest.mark.parametrize(
    "words",
    ["call t a=1 b=2 --server s", "call --server s t a=1 b=2", "call t --server s a=1 b=2", "call t a=1 --server s b=2"],
)
def test_an_option_may_stand_before_between_and_behind_the_words_of_a_list(words: str) -> None:
    options = parser().parse_args(words.split())
    assert (options.name, options.pairs, options.server) == ("t", ["a=1", "b=2"], "s")
    assert parser().parse_args(["import", "a", "--output", "o", "b"]).files == ["a", "b"]
    assert parser().parse_args(["call", "t"]).pairs == []


@pytest.mark.parametrize(
    ("words", "command", "unknown"),
    [("call t a=1 --nope", "call", "--nope"), ("call t --nope=1 a=1", "call", "--nope=1"), ("drain a b", "drain", "b")],
)
def test_what_a_command_does_not_take_is_told_with_its_usage(
    words: str, command: str, unknown: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        parser().parse_args(words.split())
    told = capsys.readouterr().err
    assert ended.value.code == 2
    assert told.startswith(f"usage: gateway {command} ")
    assert told.endswith(f"unrecognized arguments: {unknown}\n")
