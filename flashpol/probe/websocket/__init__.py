"""WebSocket for the probe: what Ruffle's browser sends, what came of it, and what a browser makes of that.

    url       the URL, and the origin of a page           script     the turns of one connection
    request   the bytes that a browser sends              upgrade    one connection as it is judged: head and frames
    reply     the head of an HTTP reply, read strictly    judgement  what is wrong; which proxies lose an upgrade
    frames    the frames of a server, read strictly       observe    one URL probed; the only one that connects

Ruffle gives the URL of `socketProxy` to the browser's WebSocket, and the browser decides about everything here: it asks
for no subprotocol, offers compression, follows no redirect, sends no password, and drops what breaks RFC 6455. Ruffle
itself drops text. It tells the content that it is connected before the browser has asked.
"""
