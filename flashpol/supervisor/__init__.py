"""The parent process: binds, forks, reloads, restarts, stops. It reads no byte of a client."""
