"""Work for the cell that owns it: exchanges with a server whose connection another cell holds, and questions between cells. No
actor: the connection pool and the edge use it, the cell carries its messages. Imports `messages`, and the hash ring, by which
cells share out servers."""
