"""The server that the official conformance suite expects, built with the official Python SDK and run as a process of its own.

Prints `{"port": N, "pid": N}` once it listens on loopback and ends when its standard input closes. What a legacy session is
asked by requests of the server, a modern exchange is asked by `input_required` results: `ask` does either.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import itertools
import json
import struct
import warnings
import zlib
from collections import deque
from collections.abc import Mapping
from typing import Annotated, Any

import mcp_types as types
from mcp.server import NotificationOptions
from mcp.server.mcpserver import Context, MCPServer, Resolve, Sample
from mcp.server.mcpserver.exceptions import ToolError
from mcp.server.mcpserver.prompts.base import UserMessage
from mcp.server.mcpserver.tools import Tool
from mcp.server.streamable_http import EventCallback, EventId, EventMessage, EventStore, StreamId
from mcp.shared.message import ServerMessageMetadata
from mcp_types.version import is_version_at_least
from pydantic import BaseModel, Field

from tests.doubles.everything_server import listen_and_serve, restrict_to
from tests.doubles.sdk_tasks import add_tasks

Server = MCPServer[Any]
ToolContext = Context[Any, Any]
Answers = dict[str, Any]

SCHEMA_2020_12 = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "type": "object",
    "$defs": {
        "address": {
            "$anchor": "addressDef",
            "type": "object",
            "properties": {"street": {"type": "string"}, "city": {"type": "string"}},
        }
    },
    "properties": {
        "name": {"type": "string"},
        "address": {"$ref": "#/$defs/address"},
        "contactMethod": {"type": "string", "enum": ["phone", "email"]},
        "phone": {"type": "string"},
        "email": {"type": "string"},
    },
    "allOf": [{"anyOf": [{"required": ["phone"]}, {"required": ["email"]}]}],
    "if": {"properties": {"contactMethod": {"const": "phone"}}, "required": ["contactMethod"]},
    "then": {"required": ["phone"]},
    "else": {"required": ["email"]},
    "additionalProperties": False,
}


# ---- questions to the client


def form(message: str, properties: Mapping[str, Any], required: list[str] | None = None) -> types.ElicitRequest:
    schema: dict[str, Any] = {"type": "object", "properties": dict(properties)}
    if required:
        schema["required"] = required
    return types.ElicitRequest(params=types.ElicitRequestFormParams(message=message, requested_schema=schema))


def prompt_model(text: str, max_tokens: int) -> types.CreateMessageRequest:
    message = types.SamplingMessage(role="user", content=types.TextContent(type="text", text=text))
    return types.CreateMessageRequest(params=types.CreateMessageRequestParams(messages=[message], max_tokens=max_tokens))


def sample_anything() -> Sample:
    """A question that the SDK itself asks, with all its checks."""
    return Sample(prompt_model("Anything", 10).params.messages, max_tokens=10)


ANSWER_TYPES: dict[str, type[BaseModel]] = {
    "elicitation/create": types.ElicitResult,
    "sampling/createMessage": types.CreateMessageResult,
    "roots/list": types.ListRootsResult,
}


async def ask(
    ctx: ToolContext, questions: Mapping[str, types.InputRequest], state: str | None = None
) -> Answers | types.InputRequiredResult:
    """The answers, {name of the question: result}, or what a modern server must return to get them."""
    if is_modern(ctx):
        given = ctx.input_responses or {}
        answers = {name: given[name] for name, asked in questions.items() if isinstance(given.get(name), answer_type(asked))}
        is_complete = len(answers) == len(questions) and ctx.request_state == state
        return answers if is_complete else types.InputRequiredResult(input_requests=dict(questions), request_state=state)
    related = ServerMessageMetadata(related_request_id=ctx.request_id)
    return {
        name: await ctx.session.send_request(asked, answer_type(asked), metadata=related) for name, asked in questions.items()
    }


def answer_type(asked: types.InputRequest) -> Any:
    return ANSWER_TYPES[asked.method]


def is_modern(ctx: ToolContext) -> bool:
    return ctx.protocol_version is not None and is_version_at_least(ctx.protocol_version, "2026-07-28")


NAME = {"name": {"type": "string"}}
ASK_NAME = form("What is your name?", NAME, ["name"])
CONFIRM = form("Please confirm", {"ok": {"type": "boolean"}}, ["ok"])


# ---- tools


def add_content_tools(server: Server) -> None:
    @server.tool(description="Returns a text.", structured_output=False)
    def test_simple_text() -> str:
        return "This is a simple text response for testing."

    @server.tool(description="Returns an image.", structured_output=False)
    def test_image_content() -> Any:
        return types.ImageContent(type="image", data=red_pixel(), mime_type="image/png")

    @server.tool(description="Returns a sound.", structured_output=False)
    def test_audio_content() -> Any:
        return types.AudioContent(type="audio", data=silence(), mime_type="audio/wav")

    @server.tool(description="Returns a resource.", structured_output=False)
    def test_embedded_resource() -> Any:
        return embedded("test://embedded-resource", "text/plain", "This is an embedded resource content.")

    @server.tool(description="Returns a text, an image and a resource.", structured_output=False)
    def test_multiple_content_types() -> Any:
        return [
            types.TextContent(type="text", text="Multiple content types test:"),
            types.ImageContent(type="image", data=red_pixel(), mime_type="image/png"),
            embedded("test://mixed-content-resource", "application/json", json.dumps({"test": "data", "value": 123})),
        ]

    @server.tool(description="Fails.", structured_output=False)
    def test_error_handling() -> str:
        raise ToolError("This tool intentionally returns an error for testing")

    @server.tool(description="Takes a parameter that is mirrored in a header.", structured_output=False)
    def test_header_parameter(region: Annotated[str, Field(json_schema_extra={"x-mcp-header": "Region"})]) -> str:
        return region

    @server.tool(description="Greets.", structured_output=False)
    def greet(name: str) -> str:
        return f"Hello, {name}!"


def add_telling_tools(server: Server) -> None:
    @server.tool(description="Logs three times.", structured_output=False)
    async def test_tool_with_logging(ctx: ToolContext) -> str:
        for text in ("Tool execution started", "Tool processing data", "Tool execution completed"):
            await ctx.log("info", text)
            await asyncio.sleep(0.05)
        return "Logged three times."

    @server.tool(description="Logs once.", structured_output=False)
    async def test_logging_tool(ctx: ToolContext) -> str:
        await ctx.log("info", "Only for those who asked for it")
        return "Logged."

    @server.tool(description="Reports progress three times.", structured_output=False)
    async def test_tool_with_progress(ctx: ToolContext) -> str:
        for progress in (0, 50, 100):
            await ctx.report_progress(progress, 100)
            await asyncio.sleep(0.05)
        return "Reported progress."

    @server.tool(description="Changes the list of tools.", structured_output=False)
    async def test_trigger_tool_change(ctx: ToolContext) -> str:
        if is_modern(ctx):
            await ctx.notify_tools_changed()
        else:
            await ctx.session.send_tool_list_changed()
        return "Told that tools have changed."

    @server.tool(description="Changes the list of prompts.", structured_output=False)
    async def test_trigger_prompt_change(ctx: ToolContext) -> str:
        if is_modern(ctx):
            await ctx.notify_prompts_changed()
        else:
            await ctx.session.send_prompt_list_changed()
        return "Told that prompts have changed."

    @server.tool(description="Closes its stream before it answers.", structured_output=False)
    async def test_reconnection(ctx: ToolContext) -> str:
        await ctx.close_sse_stream()
        await asyncio.sleep(0.1)
        return "Answered after the stream was closed."


class LastEvents(EventStore):
    """What sessions were told, so that a client that comes back reads what it has missed."""

    def __init__(self) -> None:
        self._events: deque[tuple[int, StreamId, types.JSONRPCMessage | None]] = deque(maxlen=1_000)
        self._ids = itertools.count(1)

    async def store_event(self, stream_id: StreamId, message: types.JSONRPCMessage | None) -> EventId:
        event_id = next(self._ids)
        self._events.append((event_id, stream_id, message))
        return str(event_id)

    async def replay_events_after(self, last_event_id: EventId, send_callback: EventCallback) -> StreamId | None:
        seen = int(last_event_id)
        stream_id = next((stream for number, stream, _ in self._events if number == seen), None)
        for number, stream, message in list(self._events):
            if number > seen and stream == stream_id and message is not None:
                await send_callback(EventMessage(message, str(number)))
        return stream_id


def add_asking_tools(server: Server) -> None:
    """Tools of the scenarios with sessions; in a modern exchange they ask as well."""

    @server.tool(description="Asks the client's model.", structured_output=False)
    async def test_sampling(prompt: str, ctx: ToolContext) -> Any:
        answers = await ask(ctx, {"sample": prompt_model(prompt, 100)})
        return answers if not isinstance(answers, dict) else f"LLM response: {answers['sample'].content.text}"

    async def fill(ctx: ToolContext, opening: str, asked: types.ElicitRequest) -> Any:
        answers = await ask(ctx, {"form": asked})
        if not isinstance(answers, dict):
            return answers
        return f"{opening}: action={answers['form'].action}, content={json.dumps(answers['form'].content)}"

    @server.tool(description="Asks the user for a name and an address.", structured_output=False)
    async def test_elicitation(message: str, ctx: ToolContext) -> Any:
        properties = {
            "username": {"type": "string", "description": "User's response"},
            "email": {"type": "string", "description": "User's email address"},
        }
        return await fill(ctx, "User response", form(message, properties, ["username", "email"]))

    @server.tool(description="Asks with a default for every kind of value.", structured_output=False)
    async def test_elicitation_sep1034_defaults(ctx: ToolContext) -> Any:
        properties = {
            "name": {"type": "string", "default": "John Doe"},
            "age": {"type": "integer", "default": 30},
            "score": {"type": "number", "default": 95.5},
            "status": {"type": "string", "enum": ["active", "inactive", "pending"], "default": "active"},
            "verified": {"type": "boolean", "default": True},
        }
        return await fill(ctx, "Elicitation completed", form("Please check these values", properties))

    @server.tool(description="Asks with every kind of choice.", structured_output=False)
    async def test_elicitation_sep1330_enums(ctx: ToolContext) -> Any:
        options = ["option1", "option2", "option3"]
        titled = [{"const": "value1", "title": "First Choice"}, {"const": "value2", "title": "Second Choice"}]
        properties = {
            "untitledSingle": {"type": "string", "enum": options},
            "titledSingle": {"type": "string", "oneOf": titled},
            "legacyEnum": {"type": "string", "enum": ["opt1", "opt2"], "enumNames": ["Option One", "Option Two"]},
            "untitledMulti": {"type": "array", "items": {"type": "string", "enum": options}},
            "titledMulti": {"type": "array", "items": {"anyOf": titled}},
        }
        return await fill(ctx, "Elicitation completed", form("Please choose", properties))

    @server.tool(description="Needs a client with a model.", structured_output=False)
    async def test_missing_capability(answer: Annotated[types.CreateMessageResult, Resolve(sample_anything)]) -> str:
        return f"Sampled from {answer.model}."

    @server.tool(description="Asks while its answer is streamed.", structured_output=False)
    async def test_streaming_elicitation(ctx: ToolContext) -> Any:
        await ctx.report_progress(0, 1)
        answers = await ask(ctx, {"confirm": CONFIRM})
        return answers if not isinstance(answers, dict) else f"Confirmed: {answers['confirm'].action}"


def add_rounds_of_input(server: Server) -> None:
    """Tools and the prompt of the scenarios about `input_required` results."""

    def add(name: str, questions: dict[str, types.InputRequest], state: str | None = None) -> None:
        async def asking(ctx: ToolContext) -> Any:
            answers = await ask(ctx, questions, state)
            return answers if not isinstance(answers, dict) else answer_text(answers)

        server.add_tool(asking, name=f"test_input_required_result_{name}", description="Needs input.", structured_output=False)

    question = prompt_model("What is the capital of France?", 100)
    add("elicitation", {"user_name": ASK_NAME})
    add("sampling", {"capital_question": question})
    add("list_roots", {"client_roots": types.ListRootsRequest()})
    add("request_state", {"confirm": CONFIRM}, "state-ok")
    add("tampered_state", {"confirm": CONFIRM}, "sealed by the SDK")
    three = {"user_name": ASK_NAME, "greeting": prompt_model("Generate a greeting", 50), "client_roots": types.ListRootsRequest()}
    add("multiple_inputs", three, "three questions")

    @server.tool(name="test_input_required_result_multi_round", description="Needs input twice.", structured_output=False)
    async def in_rounds(ctx: ToolContext) -> Any:
        first: types.InputRequest = form("Step 1: What is your name?", NAME, ["name"])
        second: types.InputRequest = form("Step 2: What is your favorite color?", {"color": {"type": "string"}}, ["color"])
        if is_modern(ctx) and ctx.request_state == "first round":
            answers = await ask(ctx, {"step1": first}, "first round")
            if isinstance(answers, dict):
                return types.InputRequiredResult(input_requests={"step2": second}, request_state="second round")
            return answers
        if is_modern(ctx) and ctx.request_state != "second round":
            return types.InputRequiredResult(input_requests={"step1": first}, request_state="first round")
        if not is_modern(ctx):
            await ask(ctx, {"step1": first})
        answers = await ask(ctx, {"step2": second}, "second round")
        return answers if not isinstance(answers, dict) else answer_text(answers)

    @server.tool(name="test_input_required_result_capabilities", description="Asks what it may.", structured_output=False)
    async def ask_what_is_possible(ctx: ToolContext) -> Any:
        client = ctx.client_capabilities or types.ClientCapabilities()
        possible = {"elicitation": client.elicitation, "sampling": client.sampling, "roots": client.roots}
        asked = {"elicitation": ASK_NAME, "sampling": question, "roots": types.ListRootsRequest()}
        answers = await ask(ctx, {name: asked[name] for name, declared in possible.items() if declared is not None})
        return answers if not isinstance(answers, dict) else answer_text(answers)

    @server.prompt(name="test_input_required_result_prompt", description="Needs input.")
    async def asking_prompt(ctx: ToolContext) -> Any:
        asked = form("What context should the prompt use?", {"context": {"type": "string"}}, ["context"])
        answers = await ask(ctx, {"user_context": asked})
        return answers if not isinstance(answers, dict) else f"In this context: {answer_text(answers)}"


def answer_text(answers: Answers) -> str:
    return json.dumps({name: answer.model_dump(mode="json", by_alias=True) for name, answer in answers.items()})


# ---- resources, prompts, completion


def add_resources(server: Server) -> None:
    @server.resource("test://static-text", name="static-text", description="A text.", mime_type="text/plain")
    def static_text() -> str:
        return "This is the content of the static text resource."

    @server.resource("test://static-binary", name="static-binary", description="An image.", mime_type="image/png")
    def static_binary() -> bytes:
        return base64.b64decode(red_pixel())

    @server.resource("test://watched-resource", name="watched-resource", description="Can be watched.", mime_type="text/plain")
    def watched() -> str:
        return "Watched."

    @server.resource("test://template/{id}/data", name="template", description="By id.", mime_type="application/json")
    def template(id: str) -> str:
        return json.dumps({"id": id, "templateTest": True, "data": f"Data for ID: {id}"})


def add_prompts(server: Server) -> None:
    @server.prompt(description="A text.")
    def test_simple_prompt() -> str:
        return "This is a simple prompt for testing."

    @server.prompt(description="A text with two arguments.")
    def test_prompt_with_arguments(arg1: str, arg2: str) -> str:
        return f"Prompt with arguments: arg1='{arg1}', arg2='{arg2}'"

    @server.prompt(description="A resource and a text.")
    def test_prompt_with_embedded_resource(resourceUri: str) -> Any:
        return [
            UserMessage(embedded(resourceUri, "text/plain", "Embedded resource content for testing.")),
            UserMessage("Please process the embedded resource above."),
        ]

    @server.prompt(description="An image and a text.")
    def test_prompt_with_image() -> Any:
        image = types.ImageContent(type="image", data=red_pixel(), mime_type="image/png")
        return [UserMessage(image), UserMessage("Please analyze the image above.")]

    @server.completion()
    async def complete(ref: Any, argument: Any, context: Any) -> types.Completion:
        values = [word for word in ("paris", "park", "party", "test1", "test2") if word.startswith(argument.value)]
        return types.Completion(values=values, total=len(values), has_more=False)


def add_session_methods(server: Server) -> None:
    """What the high-level server leaves out for sessions, and what it can change."""
    low_level = server._lowlevel_server

    async def accept(ctx: Any, params: Any) -> types.EmptyResult:
        return types.EmptyResult()

    low_level.add_request_handler("logging/setLevel", types.SetLevelRequestParams, accept)
    low_level.add_request_handler("resources/subscribe", types.SubscribeRequestParams, accept)
    low_level.add_request_handler("resources/unsubscribe", types.UnsubscribeRequestParams, accept)
    changes = NotificationOptions(prompts_changed=True, resources_changed=True, tools_changed=True)
    announced = low_level.create_initialization_options
    low_level.create_initialization_options = lambda *_, **options: announced(changes, **options)  # type: ignore[method-assign]


def embedded(uri: str, mime_type: str, text: str) -> types.EmbeddedResource:
    contents = types.TextResourceContents(uri=uri, mime_type=mime_type, text=text)
    return types.EmbeddedResource(type="resource", resource=contents)


def red_pixel() -> str:
    """A PNG image of one red pixel, in Base64."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 1, 1, 8, 2, 0, 0, 0)
    pixels = zlib.compress(b"\x00\xff\x00\x00")
    png = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
    return base64.b64encode(png).decode()


def silence() -> str:
    """A WAV file of one silent sample, in Base64."""
    form_of_samples = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, 1, 8000, 8000, 1, 8)
    samples = struct.pack("<4sIB", b"data", 1, 128)
    wav = struct.pack("<4sI4s", b"RIFF", 4 + len(form_of_samples) + len(samples), b"WAVE") + form_of_samples + samples
    return base64.b64encode(wav).decode()


def build() -> Server:
    """The server with all that the suite's scenarios ask for."""
    schema_tool = Tool.from_function(lambda: "valid", name="json_schema_2020_12_tool", description="Has a rich schema.")
    schema_tool.parameters = SCHEMA_2020_12
    server: Server = MCPServer("conformance", version="1.0.0", log_level="CRITICAL", tools=[schema_tool])
    for add in (add_content_tools, add_telling_tools, add_asking_tools, add_rounds_of_input, add_resources, add_prompts):
        add(server)
    add_session_methods(server)
    add_tasks(server)
    return server


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--era", choices=("both", "legacy", "modern"), default="both")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    restrict_to(options.era)
    listen_and_serve(build().streamable_http_app(event_store=LastEvents(), retry_interval=200), options.port)


if __name__ == "__main__":
    main()
