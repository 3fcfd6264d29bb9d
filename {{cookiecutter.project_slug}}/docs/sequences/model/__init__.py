"""Masked proteins. What each of these files must give says the table of docs/make-it-yours.md, and why, contracts/."""
