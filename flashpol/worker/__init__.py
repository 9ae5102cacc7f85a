"""What runs in a worker process: listeners, connections and slow replies on one gevent hub."""
