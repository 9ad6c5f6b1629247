"""What the documentation site takes from outside `docs/`: the README as its first page, results, and more.

Pages are written to be read in the repository. Their links to files that the site has are turned to the
site's, and links to other files of the repository become plain code.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]

MOVED = {"README.md": "index.md", "CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md"}
"""Pages at the root of the repository, and what they are called on the site."""

LINK = re.compile(r"(!?)\[([^\]]*)\]\((?!https?:|#)([^)#\s]*)(#[^)\s]*)?\)")


def on_files(files: Files, config: Any) -> Files:
    """Add the pages and pictures from outside `docs/`."""
    for name, page in MOVED.items():
        files.append(File.generated(config, page, abs_src_path=str(ROOT / name)))
    for path in sorted((ROOT / "benchmarks/results").rglob("*")):
        if path.suffix in (".md", ".png"):
            files.append(File.generated(config, str(path.relative_to(ROOT)), abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Turn the links of a page, which are the repository's, to the site's."""
    here = {site: name for name, site in MOVED.items()}.get(page.file.src_uri)
    if here is None:
        inside = page.file.src_uri.startswith("benchmarks/")
        here = page.file.src_uri if inside else f"docs/{page.file.src_uri}"

    def turned(match: re.Match[str]) -> str:
        image, text, link, anchor = match.groups()
        target = posixpath.normpath(posixpath.join(posixpath.dirname(here), link))
        if not (ROOT / target).exists():
            return match.group(0)  # for the check of links to complain about
        place = MOVED.get(target, target.removeprefix("docs/"))
        if files.get_file_from_path(place) is None:
            return (
                text if text.startswith("`") else f"{text} (`{target}`)" if text != target else f"`{target}`"
            )
        start = posixpath.dirname(page.file.src_uri) or "."
        return f"{image}[{text}]({posixpath.relpath(place, start)}{anchor or ''})"

    return LINK.sub(turned, markdown)
