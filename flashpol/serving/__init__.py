"""What is served, loaded by the parent before it forks: policies, lists of networks, the plan of a generation."""
