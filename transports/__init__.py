"""Everything between a socket and the actors: clients on one side (downstream), servers on the other (upstream), between them the
pure protocol and the ports. Never imports actors or scripts."""
