"""Rows from files and from Python, their roles, and the order they are trained in."""
