"""Waves: docs/make-it-yours.md has a table of these files."""
