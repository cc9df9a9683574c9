"""The child process of an agent that trains: one trial after another, in one slot. It holds no storage."""
