"""The version of minisbert."""

__version__ = "0.1.0"
