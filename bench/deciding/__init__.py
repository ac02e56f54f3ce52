"""From stored Trials to verdicts. Never imports torch, touches no file."""
