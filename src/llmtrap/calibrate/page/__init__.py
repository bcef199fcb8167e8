"""The calibration report as one self-contained HTML page."""

from llmtrap.calibrate.page.render import to_html

__all__ = ["to_html"]
