"""What to set on a host that holds many clients, and why. `sysctl.conf(5)` takes the names of sysctls as they are."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Setting:
    """name: of a sysctl, or a pattern of files below / with `*`. value: to set; empty: the default stays."""

    name: str
    value: str
    why: str

    @property
    def is_sysctl(self) -> bool:
        """Whether sysctl(8) knows it."""
        return not self.name.startswith("/")


SETTINGS = (
    Setting("net.core.somaxconn", "65535", "The kernel lowers `backlog` to it: that many connections wait for a "
            "worker. A container has its own. Where an opening is expensive, `backlog` is to be less."),
    Setting("net.ipv4.tcp_syncookies", "", "With 1 a half-open connection over the limit gets a cookie, and "
            "`net.ipv4.tcp_max_syn_backlog` has no effect."),
    Setting("net.ipv4.tcp_abort_on_overflow", "", "With 0 a client of a full accept queue sends its SYN again; with 1 "
            "it would get RST."),
    Setting("net.ipv4.ip_local_port_range", "1024 65535", "Each session has a local port towards its upstream. "
            "`net.ipv4.ip_local_reserved_ports` keeps those of other services."),
    Setting("net.ipv4.tcp_timestamps", "", "With 1 here and at the upstream, flashpol takes over ports that are in "
            "TIME-WAIT."),
    Setting("net.ipv4.tcp_max_tw_buckets", "", "Each policy reply leaves a connection in TIME-WAIT. The kernel ends "
            "those above the limit at once, which costs no client its reply."),
    Setting("net.netfilter.nf_conntrack_max", "4194304", "A session has two entries, and each connection keeps its "
            "entry for two minutes after its end. At the limit packets are dropped. It is better to have none: "
            "`notrack` for the ports of flashpol and of the upstream."),
    Setting("net.netfilter.nf_conntrack_buckets", "1048576", "A look-up is short where a bucket has few entries."),
    Setting("net.netfilter.nf_conntrack_tcp_timeout_established", "", "The `keepalive` of flashpol renews the "
            "entries of idle sessions, and resets those whose client has vanished, so these days do not matter."),
    Setting("fs.nr_open", "1048576", "The highest `LimitNOFILE=` of the unit, and the most that a worker uses."),
    Setting("fs.file-max", "", "Open files of the host. The kernel makes it from the memory; two for each session must "
            "fit."),
    Setting("fs.epoll.max_user_watches", "", "Each descriptor of a client or of an upstream is in an epoll set, and "
            "all workers are one user. The kernel makes it from the memory; two for each session must fit."),
    Setting("net.core.netdev_max_backlog", "10000", "Packets that wait for a CPU with RPS. The second column of "
            "/proc/net/softnet_stat counts those that were dropped."),
    Setting("/proc/irq/*/smp_affinity_list", "one CPU for each queue of the card", "The CPU that takes a queue's "
            "interrupts does the kernel's part of its connections. `irqbalance` moves them as it sees fit."),
    Setting("/sys/class/net/*/queues/rx-*/rps_cpus", "all CPUs, if the card has fewer queues than CPUs", "RPS spreads "
            "the packets of one queue over CPUs, by connection."),
    Setting("net.core.rps_sock_flow_entries", "", "RFS moves packets to the CPU that reads the socket. Without workers "
            "that are pinned to CPUs it follows the scheduler; it is off by default."),
)  # fmt: skip


def path_of(name: str) -> Path:
    """The file of a sysctl."""
    return Path("/proc/sys", *name.split("."))


def values() -> dict[str, str]:
    """What this host has, by sysctl; without those that its kernel lacks."""
    found = {}
    for setting in SETTINGS:
        path = path_of(setting.name)
        if setting.is_sysctl and path.exists():
            found[setting.name] = " ".join(path.read_text().split())
    return found
