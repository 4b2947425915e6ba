"""`python -m tests.mutations [NAME ...]`, which `./test mutations` starts."""

import sys

from .cli import main

sys.exit(main())
