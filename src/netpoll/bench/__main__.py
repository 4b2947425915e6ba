"""``python -m netpoll.bench`` is ``python -m netpoll bench``."""

import sys

from netpoll.bench.cli import main

if __name__ == "__main__":
    sys.exit(main())
