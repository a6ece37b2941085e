"""`python -m flowbrush` is the command `flowbrush`; torchrun starts it so."""

from flowbrush.cli import main
from flowbrush.processes import leave

if __name__ == "__main__":
    leave(main())
