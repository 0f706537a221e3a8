"""What building the site adds to its pages: typeset equations, code as it stands in src/, and names
for what is read aloud or reached by keyboard.

``$...$`` and ``$$...$$`` become MathML, which browsers draw themselves: no script, no other host.
A line ``<!-- source: quickstudy.learners.maml.MAML.adapt -->`` becomes that method; several names
on the line come one below the other. What cannot be typeset or found stops the build.
"""

import ast
import html
import re
import textwrap
from pathlib import Path
from typing import Any

from latex2mathml.converter import convert
from mkdocs.exceptions import PluginError

SRC = Path(__file__).parents[1] / "src"


def on_page_markdown(markdown: str, **kwargs: Any) -> str:
    return re.sub(
        r"^<!-- source: (.*?) -->$", lambda m: _code(m[1].split()), markdown, flags=re.M | re.S
    )


def on_page_content(html: str, **kwargs: Any) -> str:
    equation = r'<(span|div) class="arithmatex">\\[(\[](.*?)\\[)\]]</\1>'
    html = re.sub(equation, lambda m: _typeset(m[2], m[1] == "div"), html, flags=re.S)
    wrapped = r'<div class="scroll" role="region" aria-label="Table" tabindex="0">\1</div>'
    return re.sub(r"(<table>.*?</table>)", wrapped, html, flags=re.S)


def on_post_page(output: str, **kwargs: Any) -> str:
    return output.replace('role="dialog"', 'role="dialog" aria-label="Search"')


def _typeset(latex: str, display: bool) -> str:
    latex = html.unescape(latex).strip()
    typeset = convert(latex, display="block" if display else "inline")
    if "\\" in typeset:  # what it does not know, it leaves as it is
        raise PluginError(f"latex2mathml cannot typeset {latex!r}")
    return f'<div class="equation">{typeset}</div>' if display else typeset


def _code(names: list[str]) -> str:
    found = [source(name) for name in names]
    files = dict.fromkeys(file.relative_to(SRC).as_posix() for file, _ in found)
    code = "\n\n".join(code for _, code in found)
    return f'```python title="{", ".join(files)}"\n{code}\n```'


def source(name: str) -> tuple[Path, str]:
    """The file of a class, a method or a function, and its code without a long docstring."""
    parts = name.split(".")
    modules = [(SRC.joinpath(*parts[:i]).with_suffix(".py"), parts[i:]) for i in range(len(parts))]
    file, path = next((m for m in modules if m[0].is_file()), (None, []))
    if file is None:
        raise PluginError(f"no module of {SRC} has {name!r}")
    lines = file.read_text().splitlines()
    node: Any = ast.parse("\n".join(lines))
    for part in path:
        node = next((child for child in node.body if getattr(child, "name", None) == part), None)
        if node is None:
            raise PluginError(f"{file.relative_to(SRC)} has no {'.'.join(path)!r}")
    first = min(x.lineno for x in [node, *node.decorator_list])
    doc = node.body[0] if ast.get_docstring(node) else None
    long = range(doc.lineno, doc.end_lineno + 1) if doc and doc.end_lineno > doc.lineno else ()
    code = "\n".join(lines[n - 1] for n in range(first, node.end_lineno + 1) if n not in long)
    return file, textwrap.dedent(code)
