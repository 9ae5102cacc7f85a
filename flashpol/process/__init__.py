"""What every process of the server needs: privileges and limits, sockets, control messages from the parent."""
