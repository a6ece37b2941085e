"""Markdown as code-hosting sites read it, made plain to Python-Markdown.

That wants an empty line before a list, a table or a formula, and four spaces before what is inside
an item.
"""

import re

FENCE = re.compile(r"\s*(`{3,}|~{3,})")
FORMULA = re.compile(r"^\$\$.+?\$\$[^\S\n]*$", re.MULTILINE | re.DOTALL)  # on lines of its own
ITEM = re.compile(r"(\s*)(?:[-*+]|\d+\.)\s+\S")


def loosened(markdown: str) -> str:
    made: list[str] = []
    fence, outer = "", list[int]()  # outer: the indents of the items that a line is inside of
    for line in FORMULA.sub(r"\n\g<0>\n", markdown).splitlines():
        found, item = FENCE.match(line), ITEM.match(line)
        if fence:
            fence = "" if line.strip() == fence else fence
        elif found:
            fence = found[1]
        elif item:
            indent = len(item[1])
            if not outer and made and made[-1].strip():
                made.append("")
            outer = [before for before in outer if before < indent]
            line = "    " * len(outer) + line.lstrip()
            outer.append(indent)
        elif line.startswith("|"):
            if made and made[-1].strip() and not made[-1].startswith("|"):
                made.append("")
        elif outer and line.strip():
            if not line.startswith(" ") and made and not made[-1].strip():
                outer = []
            elif line.startswith(" "):
                line = "    " * len(outer) + line.lstrip()
        made.append(line)
    return "\n".join(made) + "\n"
