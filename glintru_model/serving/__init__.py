"""What is registered: the served model and the registry's rules."""
