"""slabwatch: watch the kernel's slab memory, prove that it is retained, get it back."""

__version__ = "0.1.0"
