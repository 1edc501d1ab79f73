"""The one exception that a user's mistake raises: what was expected, what came, and the remedy."""


class ParedownError(Exception):
    """A mistake that the user can mend; the command line prints it without a traceback."""
