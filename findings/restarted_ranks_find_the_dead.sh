#!/usr/bin/env bash
# torch 2.13.0, Python 3.11. On the CPU.
#
# `torchrun --max-restarts 1` starts all processes again when one of them has ended, and they meet in the store that
# torchrun keeps: the comment in torch's own env:// rendezvous says that each start gets a new one. So
# init_process_group("gloo") finds the addresses that the processes before have left there. A process that comes to look
# before another one has written its new address connects to the one that is dead, and fails ("Connection refused") or
# waits; whether a restart works depends on which process is faster. Here one sleeps for three seconds before it
# begins, as one that loads a larger shard of data does, and the restart fails every time. With the number of the
# restart as a prefix of the store, it works:
#     store, rank, size = next(rendezvous("env://"))
#     store = PrefixStore(os.environ["TORCHELASTIC_RESTART_COUNT"], store)
#     init_process_group("gloo", store=store, rank=rank, world_size=size)
#
# Output seen:
#   as torch does it: the first start meets, the second one does not (Connection refused)
#   under a prefix: the first start meets, the second one meets
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet torch==2.13.0 numpy
cat > job.py <<'PY'
import os
import sys
import time

from torch import distributed
from torch.distributed.rendezvous import rendezvous

start, rank = os.environ["TORCHELASTIC_RESTART_COUNT"], os.environ["RANK"]
if start == "1" and rank == "1":
    time.sleep(3)
if sys.argv[1] == "prefix":
    store, number, size = next(rendezvous("env://"))
    distributed.init_process_group("gloo", store=distributed.PrefixStore(start, store), rank=number, world_size=size)
else:
    distributed.init_process_group("gloo")
os.write(1, f"start {start} met\n".encode())
distributed.barrier()
if start == "0" and rank == "1":
    os._exit(3)
distributed.barrier()
distributed.destroy_process_group()
PY
started() {
    OMP_NUM_THREADS=1 timeout 60 venv/bin/python -m torch.distributed.run --standalone --nproc-per-node 2 \
        --max-restarts 1 job.py "$1" > "$1.txt" 2>&1 || true
    [ "$(grep -c 'start 0 met' "$1.txt")" -eq 2 ]
}
started plain
started prefix
refused=$(grep -c 'Connection refused' plain.txt || true)
again=$(grep -c 'start 1 met' plain.txt || true)
[ "$refused" -gt 0 ] && [ "$again" -lt 2 ] || { echo "the behaviour has changed"; exit 1; }
echo "as torch does it: the first start meets, the second one does not (Connection refused)"
[ "$(grep -c 'start 1 met' prefix.txt)" -eq 2 ] || { echo "the behaviour has changed"; exit 1; }
echo "under a prefix: the first start meets, the second one meets"
