"""What the mind is told: chat formats, tasks, boxes written as text."""
