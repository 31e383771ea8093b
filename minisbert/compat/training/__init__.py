"""Training in the way of the reference: its trainer and arguments, callbacks, and the old `fit`."""
