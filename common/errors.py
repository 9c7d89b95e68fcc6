"""The exceptions whose messages are written for the user."""


class UserError(Exception):
    """Something that the user can fix: the message names the file or flag and the remedy; scripts print it without a traceback."""


class NotHere(UserError):
    """A run is not possible on this machine at this time: a hub or a store does not answer, or a package is missing. Elsewhere,
    or later, the same run may be possible."""
