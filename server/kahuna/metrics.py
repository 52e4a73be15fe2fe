"""Figures for Prometheus, on loopback."""

from prometheus_client import Counter, Gauge, Histogram

CALLS = Counter("kahuna_calls", "Calls answered.", ["method", "code"])
CALL_SECONDS = Histogram("kahuna_call_seconds", "How long calls took.", ["method"])
SESSIONS = Gauge("kahuna_sessions", "Agents connected.")
REVISION = Gauge("kahuna_revision", "The revision the view stands at.")
