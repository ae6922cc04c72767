"""Virtual instrument: whoever posts frames and applies mirror commands when the real one is away."""
