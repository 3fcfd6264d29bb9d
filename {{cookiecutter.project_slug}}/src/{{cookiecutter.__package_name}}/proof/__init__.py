"""Proofs that any network of this project trains the same in every layout; used by the `layouts` command and the tests."""
