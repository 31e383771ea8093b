"""Rows from files and from Python, their roles, and the order of training."""
