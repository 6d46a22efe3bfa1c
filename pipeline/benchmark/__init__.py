"""How fast this machine runs the stages: ceilings, rounds of timings, targets, growth."""
