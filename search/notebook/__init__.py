"""Searches for a notebook: ``from search.notebook import load, run``."""

from search.notebook.model import Model
from search.notebook.searches import Search, load, run

__all__ = ["Model", "Search", "load", "run"]
