"""Results of a run: scores and predictions (`evaluate`), pictures (`report`), its network for others (`export`)."""
