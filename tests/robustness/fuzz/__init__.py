"""Wrong files at random, for everything that reads a file; `fuzzing.py` has the targets and the command."""
