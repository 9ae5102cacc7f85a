"""RTMP for the probe: the ways in which Flash Player reaches a media server, and what each of them is like.

    url        the address, and the ways that it means     tunnel     RTMPT: the requests of one session, over any
    amf        AMF0, as far as `connect` needs it                     number of connections
    chunks     handshake and chunks, read strictly         attempt    one way as it is judged
    http       one reply to a POST                         judgement  why a way fails; how long the fallback takes
    script     the turns of RTMP on one connection         prober     one host probed; the only one that connects

Flash Player tries RTMP on the ports 1935, 443 and 80, then RTMPT on 80; an address with a port is one attempt (Adobe's
TechNote 16631, and FMS's reference of NetConnection.connect). ffmpeg and rtmpdump try what the address says and nothing
else. What of a tunnel breaks these two was tried with ffmpeg 5.1 and rtmpdump 2.4.
"""
