#!/usr/bin/env bash
# huggingface_hub 1.0.0 (0.34.0 and 0.36.0 do the same, 2.0.0 does not), Python 3.11.
#
# A network's sign-in page comes in place of a model's file, with status 200, once. `hf_hub_download` sees that the size
# is wrong and says so, but keeps the page as the part of the file that it has. The next call asks for the rest only,
# finds that the size is right, and puts a file into the cache that begins with the page. All later calls return it.
#
# Output seen:
#   first call: OSError, Consistency check failed
#   second call: 102400 bytes of 102400, the first are <html>sign in
#   asked for: [None, 'bytes=36-']
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet huggingface_hub==1.0.0
export HF_HOME="$folder/home" HF_HUB_DISABLE_XET=1 HF_HUB_DISABLE_PROGRESS_BARS=1 NO_PROXY=127.0.0.1
venv/bin/python - <<'PY'
import hashlib
import os
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

whole = bytes(range(256)) * 400
page = b"<html>sign in to this network</html>"
ranges = []


class Hub(BaseHTTPRequestHandler):
    def answer(self, status, body, length=None):
        self.send_response(status)
        self.send_header("ETag", f'"{hashlib.sha256(whole).hexdigest()}"')
        self.send_header("X-Repo-Commit", "a" * 40)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        self.end_headers()
        self.wfile.write(body)

    def do_HEAD(self):
        self.answer(200, b"", len(whole))

    def do_GET(self):
        wanted = self.headers.get("Range")
        ranges.append(wanted)
        start = int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted else 0
        self.answer(206 if wanted else 200, page if len(ranges) == 1 else whole[start:])

    def log_message(self, *_):
        pass


server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
threading.Thread(target=server.serve_forever, daemon=True).start()
os.environ["HF_ENDPOINT"] = f"http://127.0.0.1:{server.server_address[1]}"

from huggingface_hub import hf_hub_download

try:
    first = hf_hub_download("me/model", "model.safetensors")
except OSError as error:
    first = f"OSError, {str(error)[:24]}"
print("first call:", first)
with open(hf_hub_download("me/model", "model.safetensors"), "rb") as file:
    content = file.read()
print(f"second call: {len(content)} bytes of {len(whole)}, the first are {content[:13].decode(errors='replace')}")
print("asked for:", ranges)
same = first == "OSError, Consistency check failed" and content.startswith(page) and len(content) == len(whole)
sys.exit(None if same and ranges == [None, f"bytes={len(page)}-"] else "the behaviour has changed")
PY
