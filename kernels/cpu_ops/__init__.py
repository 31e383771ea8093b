"""Fast versions for CPUs."""
