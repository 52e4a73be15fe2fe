"""Kahuna, the orchestrator: the API, the agents' streams, and the database of both."""
