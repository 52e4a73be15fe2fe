"""Vnets as bridges, and packet filters on the taps attached to them."""
