"""One order for the events of a node. Every cell has a bus and an outbox; the log, a process of the node or a part of an embedded
cell, orders, stores and distributes. Imports `messages`, `runtime`, `storage`; other actors by message only."""
