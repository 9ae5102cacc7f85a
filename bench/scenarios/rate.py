"""Latency against rate: an open loop up to and above the saturation of each server.

A closed loop sends fewer requests to a slow server, so its latencies look too good. Here clients start at fixed times,
and latency counts from them. First the scenario finds each server's saturation, the highest rate of a closed loop.
Rates are shares of that. At 70 %, where a server is busy and not yet late, tails are compared: once at each server's
own rate, and once with both at the lower one.

Other causes easily make a tail: another process that had the CPU for 4 ms is the p99.9 of that run, and so is a
generator that starts with thousands of new sockets. So the start of a run is left out, there are many short runs, and
the medians of their p99.9 are compared, not neighbours. Runs in which the generator itself was late, although it had
idle clients, were disturbed and are left out, if enough remain. If the load has only one CPU, the load saturates first
with each of the cheap servers, and rates are shares of that.
"""

from bench import load
from bench.compare import of_medians
from bench.report import Figure, Results
from bench.scenarios.interleave import WARM_UP, all_started, interleaved
from bench.servers import OURS, Server
from bench.settings import Settings

NAMES = (OURS, "C epoll, one segment", "nginx", "HAProxy", "gevent StreamServer")
SHARES = (0.3, 0.5, 0.7, 0.9, 1.0, 1.1)
QUICK_SHARES = (0.7,)
SECONDS = 0.25  # of a run: the host's other work, every second or two, disturbs the smaller part of such runs
MIN_REQUESTS = 2_000  # of a run: fewer than 1,000 have no p99.9
ROUNDS = 7
WORK_SHARE = 0.7
WORK_ROUNDS = 45
WORK_CLIENTS = 12_000  # at once: only a pause of 0.2 s uses them up, and so makes the generator late
DISTURBED = 500.0  # us, p99 of the generator's own lag; undisturbed it is 70 to 250
MIN_RUNS = 7
CLIENTS = 256  # of the closed loop that finds saturation
REPLIES = 15_000
PEER = "nginx"
CHART = "rate"


def run(settings: Settings, results: Results) -> None:
    """Add saturation, p99.9 against rate, and p99.9 at 70 % of saturation beside nginx's."""
    with all_started(settings, results, NAMES) as running:
        top = {server.name: _saturation(server, settings) for server in running}
        for name, rates in top.items():
            results.add_spread("rate", f"{name}: saturation", "replies/s", rates, digits=0, better="more")
        most = {name: max(rates) for name, rates in top.items()}
        _curves(running, most, settings, results)
        compared = [server for server in running if server.name in (OURS, PEER)]
        _compare(compared, most, "its own", settings, results)
        if PEER in most:
            _compare(compared, dict.fromkeys(most, min(most[s.name] for s in compared)), "the lower one's", settings,
                     results)  # fmt: skip


def _saturation(server: Server, settings: Settings) -> list[float]:
    count = settings.either(REPLIES, WARM_UP)
    runs = [
        load.closed(server, connections=CLIENTS, count=count, cpu=settings.load_cpus)
        for _ in range(settings.either(4, 2))
    ]
    return [one.replies / one.seconds for one in runs[1:]]  # the first warms up


def _curves(running: list[Server], most: dict[str, float], settings: Settings, results: Results) -> None:
    for share in settings.either(SHARES, QUICK_SHARES):
        p999: dict[str, list[float]] = {server.name: [] for server in running}
        for server in interleaved(running, settings.turns(ROUNDS)):
            one = _run(server, share * most[server.name], settings)
            p999[server.name].append(one.latency["p999"])
        for name, samples in p999.items():
            results.add_point(CHART, name, share * most[name], samples)


def _run(server: Server, rate: float, settings: Settings, clients: int = load.OPEN_CLIENTS) -> load.Open:
    seconds = max(SECONDS, MIN_REQUESTS / rate)
    return load.open_loop(server, rate=rate, seconds=seconds, cpu=settings.load_cpus, connections=clients)


def _compare(compared: list[Server], most: dict[str, float], whose: str, settings: Settings, results: Results) -> None:
    runs: dict[str, list[load.Open]] = {server.name: [] for server in compared}
    for server in interleaved(compared, settings.turns(WORK_ROUNDS)):
        rate = WORK_SHARE * most[server.name]
        one = _run(server, rate, settings, WORK_CLIENTS)
        runs[server.name].append(one)
    _leave_out_disturbed(runs, results)
    where = f"at {WORK_SHARE:.0%} of {whose} saturation"
    for name, of_server in runs.items():
        for quantile in ("p50", "p99", "p999"):
            samples = [one.latency[quantile] for one in of_server]
            results.add_spread("rate", f"{name}: {quantile} {where}", "us", samples, digits=0)
        lag = [one.lag_p99 for one in of_server]
        results.add_spread("rate", f"{name}: p99 of the generator's own lag {where}", "us", lag, digits=0, better="")
    if OURS in runs and PEER in runs:
        ours, theirs = ([one.latency["p999"] for one in runs[name]] for name in (OURS, PEER))
        name = f"{OURS} / {PEER}: p999 {where}, of medians (and 95 % interval)"
        results.add(Figure("rate", name, "ratio", of_medians(ours, theirs), at_most=1.0))


def _leave_out_disturbed(runs: dict[str, list[load.Open]], results: Results) -> None:
    calm = {name: [one for one in of_server if one.lag_p99 <= DISTURBED] for name, of_server in runs.items()}
    if min(map(len, calm.values())) >= MIN_RUNS:
        runs.update(calm)
    else:
        results.note("rate: too many runs were disturbed to leave them out; tails include the machine's other work")
