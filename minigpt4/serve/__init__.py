"""Serving a loaded system over HTTP: an API like OpenAI's, and a page for people."""
