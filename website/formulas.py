"""LaTeX in a page as MathML, which browsers show without a script."""

import html
import re

from latex2mathml.converter import convert
from mkdocs.exceptions import PluginError

# As pymdownx.arithmatex leaves them.
INLINE = re.compile(r'<span class="arithmatex">\\\((.+?)\\\)</span>', re.DOTALL)
BLOCK = re.compile(r'<div class="arithmatex">\s*\\\[(.+?)\\\]\s*</div>', re.DOTALL)
CODE = re.compile(r"<code.*?</code>", re.DOTALL)


def as_mathml(page: str, uri: str) -> str:
    """The page's HTML with its formulas. Raises PluginError for one not seen or not understood."""

    def block(found: re.Match[str]) -> str:
        return f'<div class="formula">{_mathml(found[1], "block", uri)}</div>'

    page = BLOCK.sub(block, page)
    if "$$" in CODE.sub("", page):
        raise PluginError(f"{uri}: a formula was not seen: does a line of it begin like a list?")
    return INLINE.sub(lambda found: _mathml(found[1], "inline", uri), page)


def _mathml(latex: str, display: str, uri: str) -> str:
    latex = html.unescape(latex).strip()
    try:
        made = convert(latex, display=display)
    except Exception as error:
        raise PluginError(f"{uri}: {latex}: {type(error).__name__} {error}") from None
    if lost := re.findall(r"\\[a-zA-Z]+", made):
        raise PluginError(f"{uri}: {latex}: {lost[0]} has no MathML; say it otherwise")
    return made
