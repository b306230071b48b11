"""What MkDocs asks while it builds the site (`make docs`): pages that are not in ``docs/``, and links that leave it.

The pages of the root keep their names, but the README is the first page. The reference is made from the program: each
command's help, the docstrings of what is public, the schema. A link to a file that has no page becomes its words.
"""

from __future__ import annotations

import json
import posixpath
import re
from pathlib import Path
from typing import Any

import click

from grym_fetch.cli.main import COMMANDS, SUMMARIES, cli
from grym_fetch.core.manifest_schema import manifest_json_schema

ROOT = Path(__file__).parents[1]
OF_THE_ROOT = {
    "README.md": "index.md",
    **{f"{name}.md": f"{name}.md" for name in ("CHANGELOG", "CONTRIBUTING", "SECURITY")},
}
"""Pages of the root, by their place in the site."""
PUBLIC = (
    "",
    ".errors",
    ".events",
    ".settings",
    ".blocking",
    ".testing",
    ".sources",
    ".manifest",
    ".reports",
    ".transport",
)
_LINK = re.compile(r"(?<!!)\[((?:[^\[\]]|\[[^\]]*\])*)\]\(([^)\s]+)\)")


def generated() -> dict[str, str]:
    """The pages that are not in ``docs/``, by their place in the site."""
    pages = {place: (ROOT / name).read_text(encoding="utf-8") for name, place in OF_THE_ROOT.items()}
    pages["reference/commands.md"] = commands_page()
    pages["reference/python.md"] = python_page()
    pages["reference/schema.md"] = schema_page()
    return pages


def commands_page() -> str:
    """The help of each command, as it prints it."""
    parts = ["# Every command's help", "", "What `grym-fetch help COMMAND` prints."]
    root = click.Context(cli, info_name="grym-fetch", max_content_width=100, terminal_width=100)
    for name in COMMANDS:
        command = cli.get_command(root, name)
        assert command is not None, name
        context = click.Context(command, info_name=name, parent=root)
        parts += ["", f"## {name}", "", SUMMARIES[name], "", "```text", command.get_help(context), "```"]
    return "\n".join([*parts, ""])


def python_page() -> str:
    """What is public, from its docstrings."""
    parts = ["# Every class and function", "", "[The Python API](../python-api.md) explains them.", ""]
    for name in PUBLIC:
        parts += [f"::: grym_fetch{name}", ""]
    return "\n".join(parts)


def schema_page() -> str:
    """The JSON Schema of the manifest."""
    schema = json.dumps(manifest_json_schema(), indent=2)
    return f"# The schema of assets.json\n\n`grym-fetch schema` prints it.\n\n```json\n{schema}\n```\n"


def linked(text: str, place: str, pages: set[str]) -> str:
    """Return a page's text with links that work in the site. ``place`` is the page's, as are those in ``pages``."""
    was = {new: old for old, new in OF_THE_ROOT.items()}.get(place)
    folder = "" if was is not None else posixpath.join("docs", posixpath.dirname(place))

    def replaced(found: re.Match[str]) -> str:
        words, link = found[1], found[2]
        target, hash_, anchor = link.partition("#")
        if "://" in link or not target:
            return found[0]
        inside = posixpath.normpath(posixpath.join(folder, target))
        site = OF_THE_ROOT.get(inside, inside.removeprefix("docs/") if inside.startswith("docs/") else None)
        if site is None or site not in pages:
            return words
        return f"[{words}]({posixpath.relpath(site, posixpath.dirname(place) or '.')}{hash_}{anchor})"

    parts = re.split(r"(^```.*?^```$)", text, flags=re.MULTILINE | re.DOTALL)
    return "".join(part if number % 2 else _LINK.sub(replaced, part) for number, part in enumerate(parts))


def on_files(files: Any, config: Any) -> Any:
    """MkDocs asks which files there are."""
    from mkdocs.structure.files import File

    for place, text in generated().items():
        files.append(File.generated(config, place, content=text))
    return files


def on_page_markdown(markdown: str, page: Any, files: Any, **_: Any) -> str:
    """MkDocs has read a page."""
    if page.file.src_uri.startswith("reference/"):
        return markdown
    text = linked(markdown, page.file.src_uri, {file.src_uri for file in files})
    return re.sub(r"!\[([^\]]*)\]\(docs/", r"![\1](", text) if page.file.src_uri == "index.md" else text
