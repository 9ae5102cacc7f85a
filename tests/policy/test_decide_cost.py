"""What a decision costs, in lines of Python instead of seconds: the same whatever the file and the port."""

import gc
import sys
from collections.abc import Callable
from types import FrameType

import pytest

from flashpol.policy import Decider

URL = "http://www.example.com/game.swf"


def adobe(domain: str, ports: str, number: int) -> bytes:
    grants = (f'<allow-access-from domain="{domain.format(n)}" to-ports="{ports}"/>' for n in range(number))
    return f"<cross-domain-policy>{''.join(grants)}</cross-domain-policy>".encode()


def silverlight(uri: str, ports: str, number: int) -> bytes:
    policies = (
        f'<policy><allow-from><domain uri="{uri.format(n)}"/></allow-from>'
        f'<grant-to><socket-resource port="{ports}" protocol="tcp"/></grant-to></policy>'
        for n in range(number)
    )
    return f"<access-policy><cross-domain-access>{''.join(policies)}</cross-domain-access></access-policy>".encode()


CASES = {
    "flash, allowed": ("flash", adobe, "*", "4510"),
    "flash, another domain": ("flash", adobe, "a{}.example", "4510"),
    "flash, another port": ("flash", adobe, "*", "4511"),
    "flash, void grants": ("flash", adobe, "a{}.example", "0"),
    "lightspark, allowed": ("lightspark", adobe, "*", "4510"),
    "lightspark, another port": ("lightspark", adobe, "*", "4511"),
    "unity, allowed": ("unity", adobe, "*", "4510"),
    "unity, another port": ("unity", adobe, "*", "4511-4520"),
    "unity, the end of a range": ("unity", adobe, "*", "4500-4510"),
    "silverlight, allowed": ("silverlight", silverlight, "http://*.example.com", "4510"),
    "silverlight, another domain": ("silverlight", silverlight, "http://a{}.example.org", "4510"),
    "silverlight, another port": ("silverlight", silverlight, "http://*", "4511"),
    "ruffle, allowed": ("ruffle", adobe, "*", "4510"),
    "ruffle, another domain": ("ruffle", adobe, "a{}.example", "4510"),
}


@pytest.mark.parametrize("case", CASES)
def test_decide_cost_does_not_depend_on_size_or_port(case: str) -> None:
    client, make, who, ports = CASES[case]
    few, many = (Decider(make(who, ports, number), [client]) for number in (2, 40))
    for decider in (few, many):  # words of an answer are made when first needed, and kept
        decider.decide(URL, 4510)
        decider.decide(URL, 4509)
    assert lines(lambda: many.decide(URL, 4510)) == lines(lambda: few.decide(URL, 4510))
    assert lines(lambda: many.decide(URL, 4508)) == lines(lambda: few.decide(URL, 4509))


def lines(work: Callable[[], object]) -> int:
    """How many lines of Python run."""
    count = 0

    def trace(frame: FrameType, event: str, argument: object) -> Callable[..., object]:
        nonlocal count
        count += event == "line"
        return trace

    before = sys.gettrace()
    gc.disable()  # what it finalizes has lines too; to collect first would take half of the time of all these tests
    sys.settrace(trace)
    try:
        work()
    finally:
        sys.settrace(before)
        gc.enable()
    return count
