"""Models on disk: where they are, how they are laid out, their weights and tokenizers."""
