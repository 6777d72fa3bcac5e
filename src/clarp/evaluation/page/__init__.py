"""The report as one HTML page that opens from disk: tables, curves, and every picture to browse."""

from clarp.evaluation.page.build import INLINE, write_page

__all__ = ["INLINE", "write_page"]
