"""The small guest of demo and tests: Debian's kernel, busybox, dropbear and a boot client that prints its findings."""
