"""The one error a user's mistake becomes."""


class UserError(Exception):
    """A mistake of the user's, said in one line: where, what was given, what would be right."""
