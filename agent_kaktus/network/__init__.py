"""Vnets as bridges, and packet filters on the taps plugged into them."""
