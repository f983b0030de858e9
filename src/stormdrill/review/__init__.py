"""From journal, records and verdict to documents that people read: Markdown and one HTML file.

A pure function of the run directory: same directory, same bytes. Nothing is typed here that can be computed, and
nothing computed here that `core` has computed already.
"""

from stormdrill.review.documents import Published as Published
from stormdrill.review.documents import RenderedReview as RenderedReview
from stormdrill.review.documents import publish as publish
from stormdrill.review.documents import render as render
