"""Models on disk: finding them, their layout, weights and tokenizers."""
