"""Every actor of the gateway, the messages between them and the pure decisions behind them."""
