"""The one exception for mistakes a user can mend."""


class UserError(ValueError):
    """Bad input: the message names the file, line or key and says what to do.

    `main.py` prints the message alone, without a traceback.
    """
