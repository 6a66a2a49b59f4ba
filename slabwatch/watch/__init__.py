"""The fixed-interval sampler, the frozen sample and what is derived from it."""
