"""The processes that serve: the arbiter, its workers, their sockets."""
