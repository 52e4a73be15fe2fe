"""Setup of machines and checkouts, the demo, and the guest image."""
