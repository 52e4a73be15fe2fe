"""The runtime of both agents: the session with Kahuna, the durable store of the desired state, reports."""

import os

# Agents run other programs. gRPC's fork handlers, enabled when grpc is imported, can deadlock then, and our children
# never use gRPC.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
