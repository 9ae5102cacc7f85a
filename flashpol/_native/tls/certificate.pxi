# Certificates: what is read of a chain and its key.
