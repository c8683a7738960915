"""Interaction logs in, item sequences out."""
