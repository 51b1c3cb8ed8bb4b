"""Servers that local runs start."""
