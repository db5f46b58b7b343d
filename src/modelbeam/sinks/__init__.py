"""Where predictions go, attempt by attempt, and how they are committed and published."""
