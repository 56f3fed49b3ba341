"""The Python face: a loaded system that answers, converses and points."""
