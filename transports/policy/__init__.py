"""Who may do what: the policies of a configuration as decisions over actions, the actions that a client's request amounts to, and
the permissions of a cell, which both sides of the event loop ask. Imports ports, the protocol and config."""
