"""The errors that are shown in one line, and a check that raises one of them."""


class InputError(ValueError):
    """Something that the user gave cannot be used. The message says why and what to do.

    Args:
        message: a single line.
        parameter: the name of the argument to change, as in the signature of the function or class.
            The command line adds the option of that name to the message.
    """

    def __init__(self, message: str, parameter: str | None = None) -> None:
        super().__init__(message)
        self.parameter = parameter


class DivergenceError(ArithmeticError):
    """The training loss is not finite. The message names the step and the last checkpoint."""

    parameter = "lr"  # the argument to change, as in `InputError`


class ProcessLost(ConnectionError):
    """Another process of a group that works together has ended; see `programs.ranks`."""


def check_range(name: str, value: float, low: float, high: float) -> float:
    """Return the value of an argument.

    Raises:
        InputError: if the value is not between `low` and `high`.
    """
    if not low <= value <= high:
        ends = f"{low:g} and {high:g}".replace("e+06", "e6")
        raise InputError(f"{name} has to be between {ends}, but is {value:g}", name)
    return value
