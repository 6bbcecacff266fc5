"""Random SIGKILLs: runs of all systems are killed again and again, at random times, until they end; then they are compared.

    python -m benchmarks.kill_series --folder FOLDER [--seed 0] [--trials 120] [--two-ranks 24]

A trial counts as a kill only if the process was still running. Of two ranks, either both are killed at once, or one, whose
death the other must notice by itself. The final exports, caches, losses and checkpoints must equal those of an uninterrupted
run, byte for byte.
"""

from __future__ import annotations

import os
import random
import signal
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from benchmarks.interruptions import SYSTEMS, Outcome, Place, join, options, report, start

from semhitok.tokenizers.checkpoints import stage_is_finished

KILLS_PER_RUN = 8
STAGES = {
    "semhitok": ("semantic", "pixel", "pixel-finetune", "decoder"),
    "unitok": ("",),
    "language": ("align", "pretrain", "sft"),
}


def stage_at(system: str, directory: Path) -> str:
    """The stage that a killed run was in."""
    for stage in STAGES[system]:
        if not stage_is_finished(directory / stage, stage or "unitok"):
            return f"{system} {stage}".strip()
    return f"{system} (at the end)"


def series(
    place: Place, system: str, ranks: int, number: int, generator: random.Random, where: Counter[str]
) -> Outcome:
    """One run that is killed up to KILLS_PER_RUN times."""
    directory, log = place.folder / f"killed-{ranks}-{number}", place.folder / f"killed-{ranks}-{number}.log"
    whole, kills = place.uninterrupted(system, ranks)[1], 0
    for _ in range(2 * KILLS_PER_RUN):
        children = start(place.run(system, directory), log, ranks)
        time.sleep(generator.uniform(0.0, 0.6 * whole))
        hit = children if generator.random() < 0.5 else [generator.choice(children)]
        for child in hit:
            os.kill(child, signal.SIGKILL)
        codes = join(children, until=90)
        if None in codes:
            return Outcome(f"{system} {number}", kills, [], "a rank outlived another one by 90 s")
        if codes == [0] * ranks:
            break
        if -signal.SIGKILL in codes:
            kills += 1
            where[stage_at(system, directory)] += 1
        if kills == KILLS_PER_RUN:
            break
    return place.outcome(f"{system} {number}", kills, system, directory, log, ranks)


def campaign(
    place: Place, seed: int, trials: int, two_ranks: int, systems: Sequence[str] = tuple(SYSTEMS)
) -> tuple[list[Outcome], Counter[str]]:
    """At least ``trials`` kills of one process and ``two_ranks`` of two, in turn over the systems."""
    generator, outcomes = random.Random(seed), list[Outcome]()
    where: Counter[str] = Counter()
    for ranks, wanted in ((1, trials), (2, two_ranks)):
        kills = number = 0
        while kills < wanted:
            system = systems[number % len(systems)]
            outcomes.append(series(place, system, ranks, number, generator, where))
            kills, number = kills + outcomes[-1].interruptions, number + 1
            print(
                f"{ranks} ranks: {system}, {outcomes[-1].interruptions} kills, equal: {outcomes[-1].good}", flush=True
            )
    return outcomes, where


def main() -> int:
    """Run the campaign."""
    arguments = options(__doc__, 120).parse_args()
    begun = time.monotonic()
    outcomes, where = campaign(Place(arguments.folder), arguments.seed, arguments.trials, arguments.two_ranks)
    for stage, count in sorted(where.items()):
        print(f"{stage}: {count}")
    return report(outcomes, begun)


if __name__ == "__main__":
    raise SystemExit(main())
