"""How each client reads a policy: one module for each client. Each compiles a policy once, to answer many queries.

    query       a query and its decision      grant_index                      grants by domain and port
    flash       Adobe's documented rules      lightspark, unity, silverlight   what those programs do, with their bugs
    ruffle      what flashpol does for it

`flashpol.policy.decide` is the interface. Each client's module begins with its rules and their sources. The sources:

    A60    Adobe, ActionScript 3.0 developer's guide, "Connecting to sockets" and "Policy file controls"
    LS     lightspark/lightspark, `src/backends/security.cpp`, `security.h`, `src/parsing/crossdomainpolicy.cpp`
    UN     mono/mono, `System.Net.Sockets/SocketPolicyClient.cs`; Unity's fork of Moonlight's reader,
           `FlashCrossDomainPolicy.cs` and `FlashCrossDomainPolicyParser.cs` (MonoForks.System.Windows.Browser.Net)
    UM     Unity manual, "Security Sandbox of the Webplayer"
    ML     mono/mono, `System.Net/System.Net.Policy/ClientAccessPolicy.cs`, `ClientAccessPolicyParser.cs`
"""

from collections.abc import Callable

from flashpol.policy.clients.flash import compile_flash
from flashpol.policy.clients.lightspark import compile_lightspark
from flashpol.policy.clients.query import Document, Evaluator
from flashpol.policy.clients.ruffle import compile_ruffle
from flashpol.policy.clients.silverlight import compile_silverlight
from flashpol.policy.clients.unity import compile_unity

COMPILE: dict[str, Callable[[Document], Evaluator]] = {
    "flash": compile_flash,
    "lightspark": compile_lightspark,
    "unity": compile_unity,
    "silverlight": compile_silverlight,
    "ruffle": compile_ruffle,
}
