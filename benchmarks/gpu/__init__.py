"""The parts of `run.py gpu`: encoding, training, memory and operations on one CUDA device, beside its limits."""
