"""``python -m minigpt4``."""

from .cli import main

main()
