"""Reads the words of a command where people write them: options before, between and behind the words of a list."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any


class CommandParser(argparse.ArgumentParser):
    """An argument parser of one command, or of all: what it cannot use, it tells with its own usage.

    argparse takes the words of a list (`nargs="*"`, "+") in one go: of `call echo --server demo message=hello` the last is left.
    """

    def parse_known_args(self, args: Sequence[str] | None = None, namespace: Any = None) -> tuple[Any, list[str]]:  # type: ignore[override]
        options, left = super().parse_known_args(args, namespace)
        name = next((action.dest for action in self._get_positional_actions() if action.nargs in ("*", "+")), None)
        if name is not None:
            words = [word for word in left if not word.startswith("-")]
            setattr(options, name, [*getattr(options, name), *words])
            left = [word for word in left if word.startswith("-")]
        if left:
            self.error(f"unrecognized arguments: {' '.join(left)}")
        return options, left
