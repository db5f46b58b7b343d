"""What a job is: its description and flags, the plan, one split's work, and what a run came to."""
