"""Learns prompts for the ways in which clips fail."""
