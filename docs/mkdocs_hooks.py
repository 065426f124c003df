"""Builds the site from Markdown files as they lie in the repository; mkdocs calls the functions `on_...`.

* Files outside docs/ become pages: `extra.pages` in mkdocs.yml lists them.
* Relative links lead from file to file, so that they work on a forge. Here a link to a page's file becomes a link to
  the page. A link to any other file, such as a configuration, leads to the repository at `repo_url`, or is left out
  without one. A link to nothing fails the strict build.
* An entry of the nav that ends with a slash stands for all pages of that folder, by name.
"""

import posixpath
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
_DOCS = "docs/"
_LINK = re.compile(r"(?P<image>!?)\[(?P<text>[^\[\]]+)\]\((?P<path>[^)\s:#]+)(?P<anchor>#[^)\s]*)?\)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the pages of files outside docs/, and writes out folders in the nav."""
    for uri, path in config.extra["pages"].items():
        files.append(File.generated(config, uri, abs_src_path=str(ROOT / path)))
    config.nav = _listed(config.nav, files)
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turns links between files into links between pages."""
    pages: dict[str, str] = config.extra["pages"]
    uris = {path: uri for uri, path in pages.items()}
    here = pages.get(page.file.src_uri, _DOCS + page.file.src_uri)

    def on_the_site(link: re.Match[str]) -> str:
        path = posixpath.normpath(posixpath.join(posixpath.dirname(here), link["path"]))
        uri = uris.get(path, path.removeprefix(_DOCS))
        if files.get_file_from_path(uri) is not None and (path in uris or path.startswith(_DOCS)):
            target = posixpath.relpath(uri, posixpath.dirname(page.file.src_uri) or ".")
        elif not (ROOT / path).exists():
            return link[0]
        elif config.repo_url:
            target = f"{config.repo_url.rstrip('/')}/blob/main/{path}"
        else:
            return link["text"]
        return f"{link['image']}[{link['text']}]({target}{link['anchor'] or ''})"

    return _LINK.sub(on_the_site, markdown)


def _listed(nav: Any, files: Files) -> Any:
    if isinstance(nav, dict):
        return {title: _listed(entry, files) for title, entry in nav.items()}
    if not isinstance(nav, list):
        return nav
    return [each for entry in nav for each in _entries(entry, files)]


def _entries(entry: Any, files: Files) -> Iterator[Any]:
    if isinstance(entry, str) and entry.endswith("/"):
        yield from sorted(file.src_uri for file in files.documentation_pages() if file.src_uri.startswith(entry))
    else:
        yield _listed(entry, files)
