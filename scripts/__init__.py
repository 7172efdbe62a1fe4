"""What is started from a shell. `command_line` reads the arguments, `serving` starts a gateway, `commands` talk to one that runs,
`benchmark` measures one from outside."""
