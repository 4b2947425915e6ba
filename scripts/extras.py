"""Prints the requirements of extras of pyproject.toml, one per line: `extras.py bench,test`.

With them the environment is filled before netpoll itself is built, so that a build that fails
does not cost the downloads again.
"""

import sys
import tomllib
from pathlib import Path


def main() -> None:
    project = tomllib.loads(Path("pyproject.toml").read_text())["project"]
    for extra in sys.argv[1].split(","):
        for requirement in project["optional-dependencies"][extra]:
            print(requirement)


if __name__ == "__main__":
    main()
