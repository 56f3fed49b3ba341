"""Folders in and out."""
