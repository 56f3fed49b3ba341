"""Files: JSON Lines, atomic writing, the cache folder."""
