"""Kahuna, the orchestrator: the API, the agents' streams, and the one database both stand on."""
