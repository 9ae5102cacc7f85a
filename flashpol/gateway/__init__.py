"""HTTP and WebSocket on the listeners' ports: what a worker decides about a request, without I/O.

origins       an Origin field -> may this page's content connect, by the policy that the listener serves
forwarded     X-Forwarded-For -> the client's address
url_policies  crossdomain.xml, clientaccesspolicy.xml -> HTTP replies
"""
