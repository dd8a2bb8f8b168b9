"""Durable bytes: what of a fit survives its processes. Verified before it is read, and never code."""
