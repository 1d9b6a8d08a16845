"""Python programs around the bestroute service. They know its reports and its wire, never its C code."""

__version__ = "0.1.0"
