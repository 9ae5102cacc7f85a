"""Latency against rate: an open loop up to and beyond what each server can do.

A closed loop asks a slow server more slowly, so its latencies flatter. Here clients begin at fixed times, and latency
counts from them. First each server's saturation is found: the most that a closed loop got out of it. Rates are shares
of that. At 70 %, where a server is busy and not yet late, the tails are compared; once at each one's own rate, and once
both at the lower one's.

A tail is easily made by something else: another process that had the CPU for 4 ms is the p99.9 of that run, and so is a
generator that begins with thousands of new sockets. So the begin of a run is left out, there are many short ones, and
the medians of their p99.9 are compared, not neighbours. Runs in which the generator itself was late, although it had
clients to spare, were disturbed and are left out, if enough remain. Where the load has only one CPU, it is the load
that is saturated first, with each of the cheap servers, and the rates are shares of that.
"""

from bench import load
from bench.compare import of_medians
from bench.report import Figure, Results
from bench.scenarios.turns import WARM_UP, all_up, in_turn
from bench.servers import OURS, Server
from bench.settings import Settings

NAMES = (OURS, "C epoll, one segment", "nginx", "HAProxy", "gevent StreamServer")
SHARES = (0.1, 0.3, 0.5, 0.7, 0.8, 0.9, 1.0, 1.1)
QUICK_SHARES = (0.3, 0.7)
SECONDS = 0.25  # of a run: what a host does besides, every second or two, disturbs the smaller part of such runs
ENOUGH_CLIENTS = 2_000  # of a run: of fewer than 1,000 there is no p99.9
ROUNDS = 7
WORK_SHARE = 0.7
WORK_ROUNDS = 45
WORK_CLIENTS = 12_000  # at once: a pause of the server must last 0.2 s before they run out and make the generator late
DISTURBED = 500.0  # us, p99 of the generator's own lag; undisturbed it is 70 to 250
ENOUGH = 7  # runs
CLIENTS = 256  # of the closed loop that finds saturation
ANSWERS = 15_000
PEER = "nginx"
CHART = "rate"


def run(settings: Settings, results: Results) -> None:
    """Add saturation, p99.9 against rate, and p99.9 at 70 % of saturation beside nginx's."""
    with all_up(settings, results, NAMES) as running:
        top = {server.name: _saturation(server, settings) for server in running}
        for name, rates in top.items():
            results.add_spread("rate", f"{name}: saturation", "answers/s", rates, digits=0, better="more")
        most = {name: max(rates) for name, rates in top.items()}
        _curves(running, most, settings, results)
        compared = [server for server in running if server.name in (OURS, PEER)]
        _compare(compared, most, "its own", settings, results)
        if PEER in most:
            _compare(compared, dict.fromkeys(most, min(most[s.name] for s in compared)), "the lower one's", settings,
                     results)  # fmt: skip


def _saturation(server: Server, settings: Settings) -> list[float]:
    count = settings.either(ANSWERS, WARM_UP)
    runs = [
        load.closed(server, connections=CLIENTS, count=count, cpu=settings.load_cpus)
        for _ in range(settings.either(4, 2))
    ]
    return [one.answered / one.seconds for one in runs[1:]]  # the first warms up


def _curves(running: list[Server], most: dict[str, float], settings: Settings, results: Results) -> None:
    for share in settings.either(SHARES, QUICK_SHARES):
        p999: dict[str, list[float]] = {server.name: [] for server in running}
        for server in in_turn(running, settings.either(ROUNDS, 1)):
            one = _run(server, share * most[server.name], settings)
            p999[server.name].append(one.latency["p999"])
        for name, samples in p999.items():
            results.add_point(CHART, name, share * most[name], samples)


def _run(server: Server, rate: float, settings: Settings, clients: int = load.OPEN_CLIENTS) -> load.Open:
    seconds = max(SECONDS, ENOUGH_CLIENTS / rate)
    return load.open_loop(server, rate=rate, seconds=seconds, cpu=settings.load_cpus, connections=clients)


def _compare(compared: list[Server], most: dict[str, float], whose: str, settings: Settings, results: Results) -> None:
    runs: dict[str, list[load.Open]] = {server.name: [] for server in compared}
    for server in in_turn(compared, settings.either(WORK_ROUNDS, 1)):
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
    if min(map(len, calm.values())) >= ENOUGH:
        runs.update(calm)
    else:
        results.note("rate: the machine was too busy to leave out disturbed runs; tails are of the machine too")
