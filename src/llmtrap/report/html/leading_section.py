"""A section that stands ahead of the report's own verdict, for who has more to say of it: the gate."""

from __future__ import annotations

from dataclasses import dataclass

from markupsafe import Markup


@dataclass(frozen=True)
class LeadingSection:
    """The section and what the page says of it elsewhere.

    Attributes:
        anchor: the section's id.
        label: the link to it in the bar.
        word: what the page's title begins with.
        html: the section.
    """

    anchor: str
    label: str
    word: str
    html: Markup
