"""HTTP and WebSocket on the listeners' ports: what a worker decides about a request, without I/O.

requests      the head of a request -> a reply, an upgrade, or neither: the rules of one listener
handshake     WebSocket's opening handshake
origins       an Origin field -> may this page's content connect, by the policy that the listener serves
forwarded     X-Forwarded-For -> the client's address
url_policies  crossdomain.xml, clientaccesspolicy.xml -> HTTP replies
replies       the other HTTP replies
ruffle        listeners -> what a page tells Ruffle
decisions     what `flashpol decide` and `/-/decide` say of Ruffle: as origins decides
"""
