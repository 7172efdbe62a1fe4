"""From settings to a gateway that serves and ends well: the launcher of a node, the embedded form, the checks before the start,
the log. Knows the actor system by its supervisors."""
