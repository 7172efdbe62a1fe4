"""What talks to a gateway that runs, through the admin port or the event stream, and prints what it hears."""
