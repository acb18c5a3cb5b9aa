"""Bastide."""
