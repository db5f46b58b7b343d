"""What people read: progress, the summary, the examination before a run."""
