"""From bytes to messages, bounded: server-sent events, lines, half characters. Knows nothing of what the messages mean."""
