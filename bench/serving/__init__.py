"""What checks of `dc-rt serve` work with: a server of their own, and requests that mean harm."""
