"""A stand-in of the vendor's Leads API, built from the vendor's document alone.

It shares no code with the rest of the project, so that a misreading of the document by one
side is not repeated by the other.
"""

from leadloop.sandbox.books import Books
from leadloop.sandbox.faults import Fault
from leadloop.sandbox.rules import Rules
from leadloop.sandbox.server import Handle, running, serve
from leadloop.sandbox.shelf import Lead
from leadloop.sandbox.traffic import Entry

__all__ = ["Books", "Entry", "Fault", "Handle", "Lead", "Rules", "running", "serve"]
