"""Pure protocol rules: no socket, no clock, no actor."""
