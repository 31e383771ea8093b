"""What is done to the library on purpose, and what is lost: each module has `run(quick=..., seed=...)` for its part."""
