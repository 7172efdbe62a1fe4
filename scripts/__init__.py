"""The command line, the launcher and the measuring tools."""
