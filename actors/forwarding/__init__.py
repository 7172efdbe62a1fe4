"""Work for the cell that owns it: exchanges with a server whose connection another cell holds, and questions between cells. No
actor; the connection pool and the edge carry its messages. Imports `messages` and the hash ring."""
