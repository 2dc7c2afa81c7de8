"""What a user calls: simultaneous, joint and segregated fits, and their results."""
