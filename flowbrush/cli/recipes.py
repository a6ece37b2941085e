"""`flowbrush recipes`."""

import inspect
import signal
import textwrap


def recipes(arguments: list[str]) -> int:
    from flowbrush.recipes import RECIPES

    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # `flowbrush recipes | head` ends quietly
    for name, build in RECIPES.items():
        print(f"{name}\n{textwrap.indent(inspect.getdoc(build) or '', '    ')}\n")
    return 0
