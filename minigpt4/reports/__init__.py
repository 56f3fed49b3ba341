"""Pages that people look at: one HTML file each, without anything from elsewhere."""
