"""Sphinx builds the documentation with this file: ``make docs``.

The pages are ``docs/*.md`` and the Markdown files of the repository's root; the reference is made from the docstrings,
one page for each package.
"""

import pkgutil
import re
from importlib import import_module
from pathlib import Path

from docutils import nodes

project = "pxframe"
root_doc = "docs/index"
extensions = ["sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode", "myst_parser"]
include_patterns = ["README.md", "CHANGELOG.md", "CONTRIBUTING.md", "docs/**"]

html_theme = "furo"
html_title = "pxframe"

autodoc_default_options = {"members": True, "show-inheritance": True, "member-order": "bysource"}
autodoc_typehints = "signature"
autodoc_inherit_docstrings = False  # a library's docstrings refer to its own documentation
add_module_names = False
napoleon_use_rtype = False
myst_heading_anchors = 3

# An unresolved reference is an error, except to other libraries: their documentation would have to be downloaded.
nitpicky = True
nitpick_ignore_regex = [(r"py:.*", r"(collections|contextvars|mmengine|mmseg|open_clip|timm|torch|torchvision)\b.*")]
# Public names are documented twice, as ``pxframe.Ticket`` and in their module: either is right.
suppress_warnings = ["ref.python"]

_PACKAGES = ("pxframe", "pxframe_plugins", "pxframe_tasks", "pxframe_tools")
_API = Path(__file__).parent / "api"


def write_reference(app):
    """Write ``docs/api/PACKAGE.rst`` for each package, with every module that lies in it."""
    pages = {name: _modules(name) for package in _PACKAGES for name in (package, *_packages(package))}
    _API.mkdir(exist_ok=True)
    for old in _API.glob("*.rst"):
        old.unlink()
    for name, modules in pages.items():
        text = [f"{name}\n{'=' * len(name)}\n\n.. automodule:: {name}\n"]
        if name == "pxframe":
            text.append("   :imported-members:\n")
        text += [f"\n{module}\n{'-' * len(module)}\n\n.. automodule:: {module}\n" for module in modules]
        (_API / f"{name}.rst").write_text("".join(text), encoding="utf-8")


def _packages(package):
    found = pkgutil.walk_packages(import_module(package).__path__, f"{package}.")
    return [module.name for module in found if module.ispkg]


def _modules(package):
    found = pkgutil.iter_modules(import_module(package).__path__, f"{package}.")
    return [module.name for module in found if not module.ispkg]


def leave_annotations(app, env, node, contnode):
    """Types in signatures need no link; a role in a docstring (a literal) does."""
    return None if isinstance(contnode, nodes.literal) else contnode


def keep_bars(app, what, name, obj, options, lines):
    """``|theta|`` is an absolute value in a docstring, not a substitution of reStructuredText."""
    parts = re.split(r"(``.*?``)", "\n".join(lines), flags=re.DOTALL)
    lines[:] = "".join(part if part.startswith("``") else part.replace("|", r"\|") for part in parts).split("\n")


def setup(app):
    app.connect("autodoc-process-docstring", keep_bars)
    app.connect("builder-inited", write_reference)
    app.connect("missing-reference", leave_annotations)
