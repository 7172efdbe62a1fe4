"""A server as FastMCP's own introduction writes one."""

from fastmcp import FastMCP

server = FastMCP("ten lines")


@server.tool
def add(a: int, b: int) -> int:
    return a + b


@server.resource("note://today")
def today() -> str:
    return "a note"


@server.prompt
def greet(name: str) -> str:
    return f"Say hello to {name}."


if __name__ == "__main__":
    server.run(show_banner=False)
