"""What a connection becomes that is more than a policy request, in greenlets."""
