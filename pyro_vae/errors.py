"""The two errors that end a run through no fault of the code, and checks that raise them."""


class InputError(ValueError):
    """What the user gave cannot be used; the message says in one line why, and what to do.

    Args:
        message: one line.
        parameter: the name of the argument to change, as the function or class calls it. The
            command line adds the option of that name to the message.
    """

    def __init__(self, message: str, parameter: str | None = None) -> None:
        super().__init__(message)
        self.parameter = parameter


class DivergenceError(ArithmeticError):
    """Training reached a loss that is not finite; the message names the step and what was kept."""


def check_range(name: str, value: float, low: float, high: float) -> float:
    """Return an argument's value.

    Raises:
        InputError: if it is not between `low` and `high`.
    """
    if not low <= value <= high:
        ends = f"{low:g} and {high:g}".replace("e+06", "e6")
        raise InputError(f"{name} has to be between {ends}, and {value:g} is not", name)
    return value
