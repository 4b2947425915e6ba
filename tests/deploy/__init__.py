"""The files of `deploy`, each run by its own program or checked by its own schema."""
