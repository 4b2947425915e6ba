"""Everything at once for as long as is wanted, and nothing grows: see __main__.py."""
