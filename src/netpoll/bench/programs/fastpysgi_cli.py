"""fastpysgi's command line, which its package gives no module for."""

from __future__ import annotations

from fastpysgi import run_from_cli

if __name__ == "__main__":
    run_from_cli()
