"""PB4xx: several ports together, and what their policies mean for the content named with --from."""

from collections.abc import Iterator

from flashpol.policy.model import MetaPolicy
from flashpol.probe.client_models import Conclusion, meta_policy
from flashpol.probe.findings.registry import ADOBE, ERROR, NOTE, WARNING, Hit, View, is_silverlights, rule
from flashpol.probe.model import Role, Target


def _beside_master(view: View) -> Iterator[tuple[Target, Target]]:
    """Pairs of a master that serves a policy and another port of its address."""
    for targets in view.observation.targets.values():
        for master in targets:
            if master.role is Role.MASTER and master.serves:
                yield from ((master, target) for target in targets if target.role in (Role.LOCATION, Role.DESTINATION))


def is_hidden(master: Target, target: Target) -> bool:
    """Return whether `target` serves a policy that the site-control of `master` forbids."""
    return target.serves and meta_policy(master) is not MetaPolicy.ALL


def unread(view: View) -> set[str]:
    """Return where policies are served that no client reads: on destinations, which only clients of Adobe's ask."""
    return {
        target.where
        for master, target in _beside_master(view)
        if target.role is Role.DESTINATION and is_hidden(master, target)
    }


@rule(
    "PB401", WARNING, "hidden",
    wrong="port {port} serves a policy that no client reads: {meta} on port {master} forbids it",
    instead='write "all" there, or move the grants of port {port} into the policy of port {master}',
    seen="both ports serve a policy, and the site-control of the first forbids the second",
    clients=("flash", "lightspark"),
)  # fmt: skip
def hidden(view: View) -> Iterator[Hit]:
    for master, target in _beside_master(view):
        if is_hidden(master, target):
            meta = meta_policy(master)
            evidence = f'{master.where}: permitted-cross-domain-policies="{meta.value}"'
            yield Hit(target, evidence, port=target.port, meta=meta.value, master=master.port)


@rule(
    "PB402", WARNING, "asked-on",
    wrong="port {master} allows without `master-only`, so Lightspark also asks port {port}, which never replies, and"
    " waits without limit",
    instead='add <site-control permitted-cross-domain-policies="master-only"/> on port {master}, or reply to policy'
    " requests on port {port}",
    seen="the first port serves a policy, the other is silent", clients=("lightspark",), trap=True,
)  # fmt: skip
def asked_on(view: View) -> Iterator[Hit]:
    for master, target in _beside_master(view):
        if target.asked.silent and meta_policy(master) is MetaPolicy.ALL:
            yield Hit(target, f"nothing came in {target.asked.ended:.1f} s", port=target.port, master=master.port)


def _denied(view: View, clients: tuple[str, ...]) -> Iterator[Hit]:
    if view.question.content is None:
        return
    for conclusion in view.conclusions:
        if conclusion.denied and conclusion.client in clients:
            yield Hit(
                _asked_by(view, conclusion), conclusion.sentence, (conclusion.client,),
                client=conclusion.client, port=view.question.port, content=view.question.content,
            )  # fmt: skip


def _asked_by(view: View, conclusion: Conclusion) -> Target:
    return next(
        target
        for target in view.observation.targets[conclusion.address]
        if is_silverlights(target) is (conclusion.client == "silverlight")
    )


@rule(
    "PB403", ERROR, "denied",
    wrong="{client} does not let content from {content} connect to port {port}",
    instead="grant it in the policy: `flashpol decide` says why it does not",
    seen="the policy that the client reads denies --from and --port",
)  # fmt: skip
def denied(view: View) -> Iterator[Hit]:
    yield from _denied(view, view.question.named or ("flash",))


@rule(
    "PB404", NOTE, "denied-to-others",
    wrong="{client} does not let content from {content} connect to port {port}",
    instead="nothing, unless this client matters; if it does, name it with --client",
    seen="as PB403, for clients that were not named", clients=(*ADOBE[1:], "silverlight"),
)  # fmt: skip
def denied_to_others(view: View) -> Iterator[Hit]:
    if not view.question.named:
        yield from _denied(view, (*ADOBE[1:], "silverlight"))
