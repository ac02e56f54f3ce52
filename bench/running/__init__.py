"""The side of a sweep that survives: processes, deadlines, the run folder's writer. Never imports torch."""
