"""Where a user's browser consents to what a server asks for: the page that a client's link leads to, the way to the authorization
server, and the way back from there. Clients themselves have no business here."""
