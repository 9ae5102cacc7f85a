"""What runs in a worker process: listeners, connections, sessions and slow replies on one gevent hub."""
