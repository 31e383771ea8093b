"""What `run.py` measures: each module has `measure(options)`, which returns a result, and `table_of(result)`."""
