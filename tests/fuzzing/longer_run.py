"""A longer run of the fuzzer: `python tests/fuzzing/longer_run.py --programs 2000`."""

import argparse
import multiprocessing
import sys
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from random import Random

import torch
from checks import CALLS, Outcome, check
from descriptions import Description, random_description, simplest


def report(outcomes: list[Outcome]) -> str:
    """Describe how many programs are right, refused and wrong, in all and by kind."""
    lines = [f"{len(outcomes)} programs"]
    for call in CALLS:
        counts = Counter(o.calls.get(call, "not asked").split(":")[0] for o in outcomes)
        lines.append(f"  {call:12} " + ", ".join(f"{n} {k}" for k, n in counts.most_common()))
    taken = [o for o in outcomes if o.counts_for_the_share]
    refused = [o for o in outcomes if o.refused]
    by_pyro = [o for o in taken if o.refused]
    lines.append(f"refused in some call: {_share(refused, outcomes)}")
    lines.append(f"  of those that Pyro's own ELBO takes: {_share(by_pyro, taken)}")
    for call in CALLS:
        some = [o for o in taken if call in o.refused]
        lines.append(f"    {call:12} {_share(some, taken)}")
    failed = [o for o in outcomes if o.failures]
    lines.append(f"wrong in some call: {_share(failed, outcomes)}")
    all_kinds, kinds = Counter[str](), Counter[str]()
    refused_kinds = Counter[str]()
    for o in outcomes:
        all_kinds.update(o.d.kinds)
        kinds.update(o.d.kinds if o.failures else [])
        refused_kinds.update(o.d.kinds if o in by_pyro else [])
    lines.append("by kind: programs, refused ones that Pyro takes, wrong ones")
    for kind, n in sorted(all_kinds.items()):
        lines.append(f"  {kind:40} {n:5} {refused_kinds[kind]:5} {kinds[kind]:5}")
    reasons = Counter(text for o in by_pyro for text in {_reason(t) for t in o.refused.values()})
    lines.append("reasons of refusals of programs that Pyro takes:")
    lines += [f"  {n:5} {text}" for text, n in reasons.most_common(25)]
    return "\n".join(lines)


def _reason(text: str) -> str:
    return "".join("#" if c.isdigit() else c for c in text.removeprefix("refused: "))[:150]


def _share(some: list[Outcome], of_all: list[Outcome]) -> str:
    return f"{len(some)} of {len(of_all)} ({len(some) / max(1, len(of_all)):.1%})"


def _fails_like(outcome: Outcome) -> Callable[[Description], bool]:
    """Return whether a description fails in one of the same calls, in the same way."""
    ways = {(call, text[:12]) for call, text in outcome.failures.items()}
    calls = tuple(outcome.failures)

    def fails(d: Description) -> bool:
        found = check(d, calls).failures.items()
        return bool(ways & {(call, text[:12]) for call, text in found})

    return fails


def _check_number(number: int, only: tuple[str, ...] | None) -> tuple[Outcome, float]:
    """Check the program of a number; return also the seconds that it took."""
    torch.set_num_threads(1)
    begin = time.monotonic()
    return check(random_description(Random(number)), only), time.monotonic() - begin


def main() -> None:
    """Run the programs, print what fails as it fails, and the counts at the end."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--programs", type=int, default=2000)
    parser.add_argument("--first", type=int, default=0, help="the number of the first program")
    parser.add_argument("--calls", nargs="*", choices=list(CALLS), help="by default all")
    parser.add_argument("--limit", type=int, default=40, help="failures to print in full")
    parser.add_argument("--simplify", action="store_true", help="print the simplest that fail")
    parser.add_argument("--processes", type=int, default=multiprocessing.cpu_count())
    options = parser.parse_args()
    only = tuple(options.calls) if options.calls else None
    numbers = range(options.first, options.first + options.programs)
    outcomes: list[Outcome] = []
    slowest, begin = (0.0, ""), time.monotonic()
    with multiprocessing.get_context("spawn").Pool(options.processes) as pool:
        results = pool.imap(partial(_check_number, only=only), numbers)
        for number, (outcome, seconds) in zip(numbers, results, strict=True):
            outcomes.append(outcome)
            slowest = max(slowest, (seconds, repr(outcome.d)))
            if outcome.failures and sum(bool(o.failures) for o in outcomes) <= options.limit:
                if options.simplify:
                    outcome = check(simplest(outcome.d, _fails_like(outcome)), only)
                print(f"program {number}: {outcome}", flush=True)
            if len(outcomes) % 100 == 0:
                print(
                    f"{len(outcomes)} programs after {time.monotonic() - begin:.0f} s", flush=True
                )
    print(report(outcomes))
    print(f"{time.monotonic() - begin:.0f} s; the slowest: {slowest[0]:.1f} s, {slowest[1]}")
    sys.exit(any(o.failures for o in outcomes))


if __name__ == "__main__":
    main()
