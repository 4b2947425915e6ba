"""The kinds of benchmark: every file here is one, and `registry.py` finds it by its being here."""
