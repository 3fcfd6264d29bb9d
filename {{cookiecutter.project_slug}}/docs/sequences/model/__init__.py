"""Proteins of which some letters are masked, and a network with attention that guesses them: docs/sequences.md."""
