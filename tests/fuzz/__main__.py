"""`scripts/fuzz --seconds 600 --seed 1`: as many seeds as there is time for; ends with 1 at the first fault."""

import argparse
import sys
import time

from tests.fuzz.devices import try_devices
from tests.fuzz.formats import try_formats
from tests.fuzz.general import try_documents
from tests.fuzz.run import try_corpus, try_seed


def main() -> int:
    """Runs until the time is over or something is wrong."""
    parser = argparse.ArgumentParser(prog="scripts/fuzz", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=1, help="The first of the seeds.")
    arguments = parser.parse_args()
    end = time.monotonic() + arguments.seconds
    said = time.monotonic()
    seed = arguments.seed
    wrong = try_corpus()
    while not wrong and time.monotonic() < end:
        wrong = [f"seed {seed}: {words}" for words in [*try_seed(seed), *try_documents(seed), *try_devices(seed),
                                                       *try_formats(seed)]]
        seed += 1
        if time.monotonic() - said > 10:
            said = time.monotonic()
            print(f"seed {seed}, {end - said:.0f} s left", flush=True)
    print("\n".join(wrong) or f"seeds {arguments.seed} to {seed - 1}: nothing found")
    return 1 if wrong else 0


sys.exit(main())
