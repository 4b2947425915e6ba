"""`python -m tests.conformance`: the summary command (see run.py)."""

import sys

from .run import main

sys.exit(main())
