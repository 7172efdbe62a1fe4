"""What a process of the node becomes after an upgrade: a fresh interpreter with the code that is on disk now.

Started by `thespian_hardening` in the place of a forked child, with the number of a memory file that only the two know.
"""

from __future__ import annotations

import gc
import importlib
import sys

from mcp_gateway.actors.runtime import thespian_hardening

from .freed_memory import keep_freed_memory
from .log_lines import configure_logging


def main(descriptor: int) -> None:
    thespian_hardening.set_environment()
    handover = thespian_hardening.take_handover(descriptor)
    logging_settings, cell_factory = handover.context()
    configure_logging(logging_settings)
    keep_freed_memory()
    gc.disable()  # as the launcher does: what is loaded here stays
    for module in ("mcp_gateway.actors.node.cell_process", cell_factory.partition(":")[0]):
        importlib.import_module(module)
    thespian_hardening.harden(handover.key, handover.bind)
    gc.freeze()
    gc.enable()
    handover.go_on()


if __name__ == "__main__":
    main(int(sys.argv[1]))
