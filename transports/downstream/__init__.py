"""Tornado handlers: the side of the gateway that clients see."""
