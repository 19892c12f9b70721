"""What x is."""
