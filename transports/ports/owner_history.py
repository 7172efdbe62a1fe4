"""What happens to owners of what a cluster has once, as lines of the log: a proof that there was one at a time.

Each begins with "owner-record" and is JSON after it.
"""

from __future__ import annotations

import json
import logging
from typing import Any

from .lease_clock import lease_clock_s

_logger = logging.getLogger(__name__)


def tell_of_owner(event: str, thing: str, node: str, began_s: float, **more: Any) -> None:
    """began_s: on the clock of leases, which all nodes of a machine share; it ends now.

    event: read, trying, acquired, released, refused, of records, by members; used, left, by cells. The fencing token is called
           "fence": the log blots out what is called a token.
    """
    line = {"event": event, "thing": thing, "node": node, "began_s": began_s, "ended_s": lease_clock_s(), **more}
    _logger.info("owner-record %s", json.dumps(line))
