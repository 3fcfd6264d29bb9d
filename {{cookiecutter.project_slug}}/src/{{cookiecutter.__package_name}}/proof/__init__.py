"""Proofs that any network of this project trains the same in every layout; for the command `layouts` and the tests."""
