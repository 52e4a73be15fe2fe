"""Storage pools, templates and volumes, behind one interface for all drivers."""
