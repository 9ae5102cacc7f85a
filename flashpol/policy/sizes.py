"""Sizes of replies that clients can read, for rules and decisions; sources in `clients`."""

# Lightspark's read buffer: it reads on only while a read fills it.
LIGHTSPARK_READ_BYTES = 4096
# The payload of a TCP segment with time stamps on Ethernet: a larger reply may arrive in parts.
SEGMENT_BYTES = 1448
# Unity receives once, at most so many bytes.
UNITY_BYTES = 5000
