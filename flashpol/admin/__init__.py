"""What operators see: metrics and health over HTTP."""
