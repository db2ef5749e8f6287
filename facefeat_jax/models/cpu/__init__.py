"""Forms of convolutions and pooling that XLA's CPU backend runs fast."""
