"""HTML from templates, in which whatever is shown is text."""

from __future__ import annotations

from jinja2 import Environment, PackageLoader, StrictUndefined


def environment(package: str, folder: str = "templates") -> Environment:
    """Return what renders a package's templates; it escapes all values.

    Args:
        package: The package that holds them.
        folder: Where in it.
    """
    return Environment(
        loader=PackageLoader(package, folder),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
