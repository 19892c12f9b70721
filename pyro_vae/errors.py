"""The two ways in which a run ends early through no fault of the code."""


class InputError(ValueError):
    """What the user gave cannot be used; the message says in one line why, and what to do."""


class DivergenceError(ArithmeticError):
    """Training reached a loss that is not finite; the message names the step and what was kept."""
