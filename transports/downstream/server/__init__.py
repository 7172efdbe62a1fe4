"""The server itself: listens, limits, checks origins and paths, and hands requests to the endpoints it was given. Knows no
endpoint."""
