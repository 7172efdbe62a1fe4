"""The wire of Streamable HTTP, redirects within one origin, and words for what fails. Implements the upstream port."""
