"""Towards servers. Each wire speaks the server's own revision; the bridge lets any client use it. Never imports downstream."""
