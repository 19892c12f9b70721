"""A longer run of the fuzzer: `python tests/fuzzing/longer_run.py --programs 2000`."""

import argparse
import sys
import time
from collections import Counter
from collections.abc import Callable
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


def main() -> None:
    """Run the programs, print what fails as it fails, and the counts at the end."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--programs", type=int, default=2000)
    parser.add_argument("--first", type=int, default=0, help="the number of the first program")
    parser.add_argument("--calls", nargs="*", choices=list(CALLS), help="by default all")
    parser.add_argument("--limit", type=int, default=40, help="failures to print in full")
    parser.add_argument("--simplify", action="store_true", help="print the simplest that fail")
    options = parser.parse_args()
    torch.set_num_threads(1)
    only = tuple(options.calls) if options.calls else None
    outcomes: list[Outcome] = []
    slow: list[tuple[float, Description]] = []
    begin = time.monotonic()
    failed = 0
    for number in range(options.first, options.first + options.programs):
        d = random_description(Random(number))
        started = time.monotonic()
        outcome = check(d, only)
        slow.append((time.monotonic() - started, d))
        outcomes.append(outcome)
        failed += bool(outcome.failures)
        if outcome.failures and failed <= options.limit:
            if options.simplify:
                outcome = check(simplest(d, _fails_like(outcome)), only)
            print(f"program {number}: {outcome}", flush=True)
    print(report(outcomes))
    slow.sort(key=lambda pair: -pair[0])
    print(f"{time.monotonic() - begin:.0f} s; the slowest: {slow[0][0]:.1f} s, {slow[0][1]}")
    sys.exit(any(o.failures for o in outcomes))


if __name__ == "__main__":
    main()
