"""Data that is made: descriptions, facts and conversations from annotations."""
