"""Bridges, and guards on the taps plugged into them."""
