"""What operators look at: /health, /metrics, and the dashboard with its page. Imports server."""
