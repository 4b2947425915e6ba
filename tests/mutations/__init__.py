"""Mutations: guards that are taken out one at a time, to see that a named test turns red.

The files *.toml are the list, catalogue.py reads it, run.py tries it: `./test mutations`.
"""
