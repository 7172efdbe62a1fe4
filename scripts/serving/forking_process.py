"""What processes of the node are forked from after an upgrade: a fresh interpreter with the code that is on disk now."""

from __future__ import annotations

import sys

from setproctitle import setproctitle

from mcp_gateway.actors.runtime import thespian_hardening
from mcp_gateway.actors.runtime.fork_server import serve_forks

from .freed_memory import keep_freed_memory
from .log_lines import configure_logging
from .preloading import load_for_processes


def main(arguments_descriptor: int, asker_descriptor: int) -> None:
    """The descriptors are those of `ForkServer`; its context is the settings and the cell factory."""
    setproctitle("mcp-gateway: fork-server")
    thespian_hardening.set_environment()
    arguments = thespian_hardening.begin_fork_server(arguments_descriptor)
    settings, cell_factory = arguments.context
    configure_logging(settings.logging)
    keep_freed_memory()
    load_for_processes(settings, cell_factory, arguments.key)
    serve_forks(asker_descriptor)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
