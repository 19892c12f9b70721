"""The schedule of the KL's weight.

The weight rises linearly over a warm-up, so that the model uses the code before it pays for it in
full (Bowman et al. 2016). With several cycles the weight then stays at its final value for as long
as the warm-up took, and the next warm-up starts (Fu et al. 2019). A warm-up is a number of epochs,
or a share of training.
"""

from dataclasses import dataclass

from pyro_vae.errors import InputError, check_range


@dataclass(frozen=True)
class KLSchedule:
    """The schedule.

    Args:
        beta: the weight at the end of each warm-up.
        warmup: the length of a warm-up in epochs; 0 if it is not given in epochs.
        warmup_share: the length of a warm-up as a share of training; 0 if it is not given so.
        start: the weight at the beginning of each warm-up.
        cycles: the number of warm-ups.

    Raises:
        InputError: if an option is out of its range, both kinds of warm-up are given, or the cycles
            take longer than training.
    """

    beta: float
    warmup: float
    warmup_share: float
    start: float
    cycles: int

    def __post_init__(self) -> None:
        if not (self.warmup or self.warmup_share) and (self.start != 0 or self.cycles != 1):
            raise InputError(
                "start and cycles describe a warm-up, and there is none: set warmup to its number "
                "of epochs, or warmup_share to its share of training",
                "warmup",
            )
        if self.warmup and self.warmup_share:
            raise InputError(
                "warmup counts epochs, and warmup_share is a share of training: give only one",
                "warmup_share",
            )
        check_range("beta", self.beta, 0, 1e6)
        check_range("warmup", self.warmup, 0, 1e6)
        check_range("warmup_share", self.warmup_share, 0, 1)
        check_range("start", self.start, 0, 1e6)
        check_range("cycles", self.cycles, 1, 1e6)
        length = (2 * self.cycles - 1) * self.warmup_share  # no plateau follows the last warm-up
        if length > 1 + 1e-6:
            raise InputError(
                f"{self.cycles} warm-ups with plateaus between them take {length:g} times as long "
                "as training: choose fewer cycles, or a smaller warmup_share",
                "warmup_share",
            )

    def weight(self, epoch: float, progress: float = 0.0) -> float:
        """Return the KL's weight.

        Args:
            epoch: the number of epochs that are done.
            progress: the share of training that is done, from 0 to 1.
        """
        if self.warmup_share:
            done, length = progress, self.warmup_share
        else:
            done, length = epoch, self.warmup
        if length == 0:
            return self.beta
        cycle = min(done // (2 * length), self.cycles - 1)
        risen = min(1.0, (done - cycle * 2 * length) / length)
        return self.start + (self.beta - self.start) * risen
