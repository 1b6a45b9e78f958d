"""Conversation, turn taking, engine, the wire, the server."""

import os

# OpenMP threads that wait by spinning take the cores from whatever else runs: with one other busy
# process, decoding fell to a third. A short spin loses 5 % on a quiet machine and little on a busy
# one. It must be set before torch is first imported.
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
