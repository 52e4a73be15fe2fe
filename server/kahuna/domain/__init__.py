"""The rules. Values in, values out: no clock, no socket, no database."""
