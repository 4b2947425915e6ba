"""Types of server/collect.pyx: to import it lets the garbage collector see connections."""
