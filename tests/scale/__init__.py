"""How a server's cost and memory grow with the connections of one process: see __main__.py."""
