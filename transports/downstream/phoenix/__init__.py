"""Phoenix channels over WebSocket. The serializers, the joined channels and their messages are pure; the socket, the channel and
the pushes of topics are shells. Imports websocket and exchanges."""
