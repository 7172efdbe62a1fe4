"""The contracts that others implement, and the values that cross them: EdgePort between handlers and actors, the upstream port
between actors and servers, the strategies a transport registers; and the tasks of the loop that both sides run on. Imports the
protocol and config; no socket, no actor."""
