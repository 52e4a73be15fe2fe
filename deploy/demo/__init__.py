"""A whole cloud on one machine, below `.demo` of the checkout: `make demo`."""
