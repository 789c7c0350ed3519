"""Decide, enforce, explain and record who may do what with an organisation's AI."""

__version__ = "0.1.0"
