"""The error that a user can mend."""


class UserError(ValueError):
    """A setting, a file or an argument that cannot be used; the message is one line that says why.

    The mains print it without a traceback. Any other `ValueError` is a bug of this package or of a library,
    and its traceback is shown.
    """
