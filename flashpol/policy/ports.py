"""Ports with a meaning of their own to clients; rules and decisions both use them."""

# Flash asks here for the master policy, the only one whose `site-control` counts (A60: see `clients`).
MASTER_PORT = 843
# Silverlight asks here for a policy over TCP.
SILVERLIGHT_PORT = 943
# Silverlight fetches the policy here over HTTP, if the application sets SocketClientAccessPolicyProtocol.Http.
SILVERLIGHT_HTTP_PORT, SILVERLIGHT_HTTP_PATH = 80, "/clientaccesspolicy.xml"
# Flash fetches its policy about URLs from here, on the port of the URL.
CROSSDOMAIN_PATH = "/crossdomain.xml"
# The first port that needs no privilege to listen on; a policy served from it or above grants no lower port (A60).
UNPRIVILEGED = 1024
# Ports that Flash fetches no policy from (moock.org, "Flash policy server").
UNFETCHED = frozenset(
    (22, 25, 37, 43, 53, 88, 111, 113, 137, 138, 139, 143, 161, 162, 389, 465, 500, 535, 546, 547, 636)
) | frozenset(range(749, 755))
# The ports that Silverlight content may connect to at all (`ClientAccessPolicy.cs`, MinPort and MaxPort).
LOWEST_SOCKET_PORT, HIGHEST_SOCKET_PORT = 4502, 4534
