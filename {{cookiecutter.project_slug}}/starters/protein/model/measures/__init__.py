"""What a network is held against: scores of a whole test set, and simple methods that learn from the same data."""
