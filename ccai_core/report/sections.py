"""A report of sentences and tables, the same as one HTML page and as Markdown.

Everything in it is data and escaped in both; the page loads nothing and runs no script.

    page = SectionPage("Reproduction", (("Release", "release"),), ("All numbers …",), (), sections)
    write_whole(folder / "reproduction.html", page.html())
    write_whole(folder / "reproduction.md", page.markdown())
"""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from typing import NamedTuple

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from ccai_core.dataset_card import cell, table


class Section(NamedTuple):
    """A part of a report: a heading, what must be known, and a table."""

    title: str
    about: str
    columns: tuple[str, ...] = ()
    rows: tuple[tuple[str, ...], ...] = ()


class SectionPage(NamedTuple):
    """The whole report."""

    title: str
    facts: tuple[tuple[str, str], ...]
    """What the page is of: label and value."""
    headline: tuple[str, ...]
    """What was found, a sentence each."""
    notes: tuple[str, ...]
    """What must be read with it."""
    sections: tuple[Section, ...]

    def markdown(self) -> str:
        """Return the report as Markdown."""
        lines = [f"- {cell(line)}" for line in (*self.headline, *self.notes)]
        parts = [f"# {cell(self.title)}", "\n".join(lines)]
        for section in self.sections:
            parts += [f"## {cell(section.title)}", cell(section.about)]
            parts += [table(section.columns, section.rows)] if section.rows else []
        return "\n\n".join(parts) + "\n"

    def html(self) -> str:
        """Return the report as a page."""
        style = (files("ccai_core.resources") / "report" / "report.css").read_text("utf-8")
        return (
            _environment().get_template("sections.html.j2").render(page=self, style=Markup(style))  # noqa: S704 (a file of this package)
        )


@cache
def _environment() -> Environment:
    return Environment(
        loader=PackageLoader("ccai_core", "resources/report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
