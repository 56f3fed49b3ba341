"""From files to examples: sources, mixture, collation, cached features."""
