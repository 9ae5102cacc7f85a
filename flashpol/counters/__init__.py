"""The shared memory in which the processes of one server count, and its sums."""
