"""A node during a round, before and after changes: from what `flocknode bench profile` wrote to a section."""
