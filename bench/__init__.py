"""The program: from a sweep file to a verdict on two-batch overlap."""

__version__ = "0.1.0"
