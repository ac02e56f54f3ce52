"""Profiles as data: what ran on the GPU, who launched it inside which range, and what that says of overlap."""
