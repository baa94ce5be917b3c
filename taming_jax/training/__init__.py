"""Training: one loop, the state that it carries, and the step of each stage."""
