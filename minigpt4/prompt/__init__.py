"""What the language model is told: chat formats, tasks, boxes written as text."""
