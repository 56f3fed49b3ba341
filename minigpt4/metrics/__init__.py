"""Measures: pure functions of answers and truth."""
