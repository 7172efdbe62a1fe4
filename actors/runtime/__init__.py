"""What actors run on: the base actor and the one with an event loop, both Thespian bases, lanes between processes, and the one
module that holds every patch of Thespian. Knows no role: imports `messages`, nothing else of `actors/`."""
