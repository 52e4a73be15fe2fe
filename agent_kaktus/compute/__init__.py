"""Instances: libvirt domains, their seeds and consoles."""
