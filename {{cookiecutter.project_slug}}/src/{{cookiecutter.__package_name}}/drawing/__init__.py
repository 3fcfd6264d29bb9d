"""Pictures of the report: what one is (`theme`), and some that fit many models (`pictures`). No torch."""
