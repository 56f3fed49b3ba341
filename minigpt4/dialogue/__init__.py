"""Models that talk with each other about images and video: ChatCaptioner, and whoever takes part in it."""
