"""The contracts that others implement and the values that cross them: EdgePort between handlers and actors, the upstream port
between actors and servers with the one Failure that an exchange may end in, the strategies that transports register; and what
both sides run on, the tasks of the loop and the credit for events on their way. Imports the protocol and config; no socket, no
actor."""
