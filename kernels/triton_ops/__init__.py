"""The operations of an encoder and of its training as Triton kernels, drop-ins for `minisbert.kernels.plain`.

Nothing here is imported before a tensor on a CUDA device is at hand.
"""
