"""The rules of lint, in one registry; `docs/rules.md` is generated from it.

registry   defines a rule              grants       FP6xx  redundant and over-broad grants
document   FP1xx  bytes and XML        clients      FP7xx  Lightspark, Unity
grammar    FP2xx  Adobe's grammar      silverlight  FP8xx  access-policy
domains    FP3xx                       markdown     docs/rules.md
ports      FP4xx                       by_url       FP9xx  crossdomain.xml
serving    FP5xx  site-control, the port served from
"""

from flashpol.policy.rules import by_url, clients, document, domains, grammar, grants, ports, serving, silverlight
from flashpol.policy.rules.registry import CLIENTS, GROUPS, READERS, REGISTRY, SOCKET, URL, Hit, Rule

# Each module registers its rules on import.
_MODULES = (document, grammar, domains, ports, serving, grants, clients, silverlight, by_url)

RULES: tuple[Rule, ...] = tuple(REGISTRY[code] for code in sorted(REGISTRY))

__all__ = ["CLIENTS", "GROUPS", "READERS", "RULES", "SOCKET", "URL", "Hit", "Rule"]
