"""Everything that knows what is modelled."""
