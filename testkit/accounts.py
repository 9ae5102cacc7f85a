"""What a listener's counters say of its connections."""

from flashpol._fastpath import REASONS
from flashpol.counters.layout import GAUGES, Block


def outcomes(block: Block) -> dict[str, int]:
    """How connections ended, by outcome; without those that did not occur."""
    found = {"reply": block.replies, "timeout": block["timeouts"], "reset": block["resets"], "served": block["served"]}
    found |= dict(zip(REASONS, block.all("refused"), strict=True))
    found["relayed"] = sum(block.all("relayed"))
    return {name: count for name, count in found.items() if count}


def assert_settled(block: Block) -> None:
    """Nothing is open, and every connection ended in exactly one way."""
    assert [block[gauge] for gauge in GAUGES] == [0] * len(GAUGES)
    assert block["accepted"] == sum(outcomes(block).values())
