"""`python -m flowbrush` is the command `flowbrush`."""

import sys

from flowbrush.cli import main

if __name__ == "__main__":
    sys.exit(main())
