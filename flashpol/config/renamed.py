"""Keys and flags that an earlier version knew by another name: an error says what to write now.

Keys are named as in the configuration file, flags with their hyphens.
"""

RENAMED = {
    "max_conversations": (
        "max_conversations was renamed: write max_sessions for relayed sessions, max_slow_replies for slow replies, "
        "both in [server]"
    ),
    "address_table": "address_table was renamed: write address_table_size, in [server]",
}
