"""Variables in other programs' files: every spelling that they have for them, and what has no value is named."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_gateway.config.placeholders import Variables, expand, input_variable

VARIABLES = Variables(
    environment={"TOKEN": "t0ken", "EMPTY": "", "lower": "l", "BOTH": "gateway", "INPUT_API_KEY": "k"},
    own={"OWN": "o", "BOTH": "server"},
    inputs={"region": "eu", "api-key": "never"},
    folder="/work/project",
    home="/home/me",
)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("${TOKEN}", "t0ken"),
        ("Bearer ${TOKEN}!", "Bearer t0ken!"),
        ("$TOKEN/$lower", "t0ken/l"),
        ("${env:TOKEN}${ENV:TOKEN}", "t0kent0ken"),
        ("${{ secrets.TOKEN }} ${{inputs.TOKEN}}", "t0ken t0ken"),
        ("{env:TOKEN}", "t0ken"),
        ("${TOKEN:-other}", "t0ken"),
        ("${NONE:-sqlite.db}", "sqlite.db"),
        ("${NONE:-}", ""),
        ("${EMPTY:-filled}|${EMPTY-kept}|${EMPTY}", "filled||"),
        ("${NONE:-${TOKEN}}", "t0ken"),
        ("${NONE:-http://127.0.0.1:80}/mcp", "http://127.0.0.1:80/mcp"),
        ("${env:NONE:-x}", "x"),
        ("${workspaceFolder}/a ${workspaceFolder:web}", "/work/project/a /work/project"),
        ("${workspaceFolderBasename}", "project"),
        ("${CLAUDE_PLUGIN_ROOT}${/}bin", "/work/project/bin"),
        ("${userHome}${pathSeparator}x", "/home/me/x"),
        ("${input:region}", "eu"),
        ("${input:api-key}", "k"),
        ("${OWN} ${BOTH}", "o server"),
        ("no reference: $ $1 pa$$TOKEN {env} 100%", "no reference: $ $1 pa$$TOKEN {env} 100%"),
        ("secret$word", "secret$word"),
    ],
)
def test_a_value_is_put_in(text: str, value: str) -> None:
    expanded = expand(text, VARIABLES)
    assert (expanded.text, expanded.missing) == (value, ())


@pytest.mark.parametrize(
    ("text", "reference", "remedy"),
    [
        ("a ${NONE} b", "${NONE}", "a value for NONE in the gateway's environment"),
        ("$NONE", "$NONE", "a value for NONE in the gateway's environment"),
        ("${env:NONE}", "${env:NONE}", "a value for NONE in the gateway's environment"),
        ("{env:NONE}", "{env:NONE}", "a value for NONE in the gateway's environment"),
        ("${A:-${NONE}}", "${NONE}", "a value for NONE in the gateway's environment"),
        ("${input:github-token}", "${input:github-token}", "its value in the environment variable INPUT_GITHUB_TOKEN"),
        ("${command:pick}", "${command:pick}", "${VAR}, ${VAR:-default}, ${env:VAR} or ${input:id}"),
        ("${{ github.sha }}", "${{ github.sha }}", "${VAR}, ${VAR:-default}, ${env:VAR} or ${input:id}"),
    ],
)
def test_what_has_no_value_is_named_with_what_would_give_it_one(text: str, reference: str, remedy: str) -> None:
    assert expand(text, VARIABLES).missing == ((reference, remedy),)


def test_the_environment_stands_before_the_folder_of_the_file() -> None:
    named = Variables(environment={"workspaceFolder": "/elsewhere"}, folder="/here", home="/home/me")
    assert expand("${workspaceFolder}", named).text == "/elsewhere"


def test_a_shell_knows_its_own_variables() -> None:
    expanded = expand("for i in $LIST; do echo $i $TOKEN; done", VARIABLES, is_script=True)
    assert (expanded.text, expanded.missing) == ("for i in $LIST; do echo $i t0ken; done", ())
    assert expand("${LIST}", VARIABLES, is_script=True).missing


def test_a_value_is_not_looked_at_again() -> None:
    assert expand("${A}", Variables(environment={"A": "${B}", "B": "b"}, folder="/", home="/")).text == "${B}"


def test_the_variable_of_an_input_is_in_capitals() -> None:
    assert input_variable("my.input-id 2") == "INPUT_MY_INPUT_ID_2"


@given(text=st.text(alphabet="${}:-AenvEMPTYinput. \\\n", max_size=40))
def test_any_text_can_be_expanded(text: str) -> None:
    expanded = expand(text, VARIABLES)
    assert isinstance(expanded.text, str)
    assert all(reference in text for reference, _ in expanded.missing)
