"""The contracts that others implement, and the values that cross them: EdgePort between handlers and actors, the upstream port
between actors and servers, the strategies a transport registers. Imports the protocol and config; no socket, no actor."""
