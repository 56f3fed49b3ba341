"""Opening pictures safely, and drawing boxes on them."""
