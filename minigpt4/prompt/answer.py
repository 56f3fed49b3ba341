"""What the mind said."""


class Answer(str):
    """An answer: a string that is the text as the mind wrote it."""

    @property
    def text(self) -> str:
        """The text as the mind wrote it, boxes and markup included."""
        return str(self)
