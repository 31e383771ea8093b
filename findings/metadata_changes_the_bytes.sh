#!/usr/bin/env bash
# safetensors 0.8.0, numpy 2.4.6, Python 3.11.
#
# The same tensors with the same metadata give files of different bytes from call to call: the entries of the metadata
# are written in an order that is drawn anew. So a digest of a file does not say whether its content is that of another,
# and builds, caches and stores that compare digests see a change where there is none. Without metadata, or with one
# entry, the bytes are always the same: put what there is to say into one entry, as JSON.
# (Known as issue 584 of safetensors.)
#
# Output seen (the number of different files of 100):
#   no metadata: 1; one entry: 1; six entries: 93
#   the content of all is equal
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet safetensors==0.8.0 numpy==2.4.6
venv/bin/python - <<'PY'
import sys

import numpy
from safetensors import safe_open
from safetensors.numpy import save, save_file

tensors = {"embeddings": numpy.arange(6, dtype=numpy.float32).reshape(2, 3)}
six = {name: name.upper() for name in "abcdef"}
files = {
    name: {save(tensors, metadata=metadata) for _ in range(100)}
    for name, metadata in {"no metadata": None, "one entry": {"about": "{}"}, "six entries": six}.items()
}
print("; ".join(f"{name}: {len(found)}" for name, found in files.items()))
equal = True
for _ in range(10):
    save_file(tensors, "file.safetensors", metadata=six)
    with safe_open("file.safetensors", "numpy") as file:
        equal &= file.metadata() == six and (file.get_tensor("embeddings") == tensors["embeddings"]).all()
print(f"the content of all is {'equal' if equal else 'different'}")
fixed = len(files["no metadata"]) == len(files["one entry"]) == 1
sys.exit(None if equal and fixed and len(files["six entries"]) > 10 else "the behaviour has changed")
PY
