"""One client exchange each, from its message to its answer. State machines without actor or loop: the edge feeds them what
happens, they speak through a Desk. Imports `messages` of `actors/` and what transports share; no runtime."""
