"""One seed's batches through every way."""

import random

from tests.fuzz.corpus import BAD, GOOD, batch
from tests.fuzz.ways import MAPPINGS, depends_on_neighbours, difference, misjudged


def try_seed(seed: int) -> list[str]:
    """What is wrong with the batch that a seed makes, by every mapping; empty where nothing is."""
    source = random.Random(seed)
    before = [batch(source), [source.choice(GOOD)] * 2]
    payloads = batch(source)
    found = [misjudged(MAPPINGS[2], payload) for payload in payloads]
    for mapping in MAPPINGS:
        found += [difference(mapping, before, payloads), depends_on_neighbours(mapping, payloads)]
    return [words for words in found if words]


def try_corpus() -> list[str]:
    """The same for each message of the corpus, after itself and after a good one."""
    found = []
    for message in GOOD + BAD:
        found.append(misjudged(MAPPINGS[2], message))
        for mapping in MAPPINGS:
            found += [difference(mapping, [[GOOD[0]] * 2], [GOOD[0], message, GOOD[0]]),
                      difference(mapping, [[message] * 2], [message]),
                      depends_on_neighbours(mapping, [GOOD[0], message, GOOD[0]])]
    return [words for words in found if words]
