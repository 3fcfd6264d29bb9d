"""Waves: docs/make-it-yours.md has a table of these files; contracts/ says what each must give, and why."""
