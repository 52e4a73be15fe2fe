"""The API: one thin servicer per resource; what all of them share is in `service` and `access`."""
