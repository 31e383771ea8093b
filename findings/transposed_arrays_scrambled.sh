#!/usr/bin/env bash
# safetensors 0.7.0 and 0.8.0, numpy 2.4.6, Python 3.11.
#
# safetensors.numpy.save_file of 0.8.0 writes the memory of an array as it lies, under the array's shape: a transposed
# array and one in Fortran order come back with the same shape and other values, without an error. 0.7.0 wrote both
# correctly, and safetensors.torch refuses tensors that are not contiguous. Arrays of this kind are usual: weight.T, and
# what many solvers return. np.ascontiguousarray before saving is the remedy.
# (Known as issue 825 of safetensors.)
#
# Output seen (array that was read equals the one that was saved: C order | transposed | Fortran order):
#   0.7.0: True | True | True
#   0.8.0: True | False | False
#   0.8.0: saved [[0, 3], [1, 4], [2, 5]], read [[0, 1], [2, 3], [4, 5]]
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
for version in 0.7.0 0.8.0; do
    python3 -m venv venv
    venv/bin/pip install --quiet numpy==2.4.6 "safetensors==$version"
    venv/bin/python - <<'PY'
import sys

import numpy as np
from safetensors import __version__
from safetensors.numpy import load_file, save_file

array = np.arange(6, dtype=np.float32).reshape(2, 3)
equal = []
for each in (array, array.T, np.asfortranarray(array)):
    save_file({"array": each}, "file.safetensors")
    equal.append(np.array_equal(load_file("file.safetensors")["array"], each))
print(f"{__version__}: {' | '.join(map(str, equal))}")
same = equal == [True, __version__ == "0.7.0", __version__ == "0.7.0"]
if __version__ == "0.8.0":
    save_file({"array": array.T}, "file.safetensors")
    read = load_file("file.safetensors")["array"]
    print(f"{__version__}: saved {array.T.astype(int).tolist()}, read {read.astype(int).tolist()}")
    same &= read.tolist() == [[0, 1], [2, 3], [4, 5]]
sys.exit(None if same else "the behaviour has changed")
PY
    rm -r venv
done
