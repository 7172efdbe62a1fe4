"""The version of this gateway, as packaging knows it."""

from importlib.metadata import version

VERSION = version("mcp-gateway")
