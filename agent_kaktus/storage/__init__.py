"""Storage pools, templates and volumes."""
