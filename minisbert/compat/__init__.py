"""Code written for sentence-transformers 2.x to 6.x runs with minisbert."""
