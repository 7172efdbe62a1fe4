"""Towards clients, on Tornado. Handlers turn bytes into exchanges and answers into bytes; they reach the actors through EdgePort.
Never imports upstream."""
