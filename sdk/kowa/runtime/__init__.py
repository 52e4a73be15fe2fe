"""What both agents stand on: the stream to Kahuna, the durable store of what is wanted, reports."""

import os

# Agents run other programs. gRPC's fork handlers, read when grpc is imported, can deadlock there, and a child of ours
# never speaks gRPC.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
