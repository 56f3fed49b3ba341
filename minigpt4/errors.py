"""The one exception that means: the input was wrong, and here is what to do about it."""


class UserError(ValueError):
    """A mistake in what the user gave us. Its text is one line that names the thing, the fault and the remedy.

    The command line prints the text and leaves with status 2; every other exception there is a defect of ours and
    shows its traceback.
    """
