"""Every published figure, with its floor measured in the same run: `make bench`."""
