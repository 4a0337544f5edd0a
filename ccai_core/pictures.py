"""What every SVG picture here has for those who do not see it.

svg = accessible(svg, "funnel", "From candidates to pairs", "1,204 candidates; rejected: …")
"""

from __future__ import annotations

from xml.sax.saxutils import escape


def accessible(svg: str, name: str, title: str, description: str) -> str:
    """Add what a screen reader says: role, title and description of the whole picture.

    `name` begins the ids, and is another for each picture of a page.
    """
    head, tag, rest = svg.partition("<svg ")
    attributes, end, body = rest.partition(">")
    words = (
        f'<title id="{name}-title">{escape(title)}</title>'
        f'<desc id="{name}-description">{escape(description)}</desc>'
    )
    labels = f'role="img" aria-labelledby="{name}-title {name}-description" '
    return f"{head}{tag}{labels}{attributes}{end}{words}{body}"
