"""Finds the function that builds a cell's content: imported where it is needed, so that a stand-in can take its place."""

from __future__ import annotations

import importlib
from typing import cast

from mcp_gateway.actors.messages.node_link import CellFactory


def load_cell_factory(dotted_path: str) -> CellFactory:
    """Return the function at "package.module:function".

    Raises: ImportError, AttributeError
    """
    module_name, _, function_name = dotted_path.partition(":")
    return cast(CellFactory, getattr(importlib.import_module(module_name), function_name))
