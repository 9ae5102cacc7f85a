"""What tests, the bench suite and the fault suite share: clients, servers as processes, network namespaces, pollers."""
